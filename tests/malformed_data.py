"""Targets on data: schema, stimuli, measures, statistics, names."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from malformed_values import (
    NEGATIVE,
    NO_COUNT,
    NO_NAME,
    NO_SHAPE,
    NO_SHARE,
    NOT_POSITIVE,
    NOT_REAL,
    Target,
    no_array,
    shape_of,
)

from pcsim import catalog, measures, roster, stats, stimuli
from pcsim.hypothesis import Control, Reference, Requirement
from pcsim.responses import (
    check_responses,
    concat,
    make_responses,
    select,
    stimulus_array,
)
from pcsim.stimulus import check_stimulus

UNITS = {"population": ["error", "latent", "latent"], "level": [0, 1, 1]}
TRIALS = {"condition": ["a", "b"]}
RESPONSES = make_responses(
    np.ones((2, 4, 3)), time=0.02 * np.arange(1, 5), units=UNITS, trial=TRIALS
)
STIMULUS = stimulus_array(np.full((2, 4, 4), 0.5), frame_duration=0.02)
NOISE = STIMULUS.copy(data=np.random.default_rng(0).uniform(size=STIMULUS.shape))
IMAGES = stimulus_array(np.full((2, 3, 4, 5), 0.5), frame_duration=0.02, px_per_deg=16.0)
SHAPE = (6, 7)
FIELD = {"field_shape": SHAPE, "px_per_deg": 16.0, "frame_duration": 0.02}
BAD_FIELD = {"field_shape": NO_SHAPE, "px_per_deg": NOT_POSITIVE, "frame_duration": NOT_POSITIVE}
BAD_FIELD["frame_duration"] = NOT_POSITIVE.filter(lambda value: value is not None)


def relabelled(stimulus: xr.DataArray) -> list[Any]:
    """Return stimuli with wrong dimensions, coordinates, types and values, and with no trials."""
    onsets: list[Any] = [[0.0, 0.02, 0.02], [0.04, 0.02, 0.0], [-0.02, 0.0, 0.02], ["a", "b", "c"]]
    onsets += [[0.0, np.nan, 0.04], [0.0, 0.02, np.inf], [0.0, 0.01, 0.02], [0, 1, 2]]
    held: list[Any] = [0.0, -0.02, np.nan, np.inf, "a", 0.05]
    coords: list[dict[str, Any]] = [{"time": time} for time in onsets]
    coords += [{"frame_duration": seconds} for seconds in held]
    coords += [{"px_per_deg": pixels} for pixels in (0.0, -16.0, np.nan, "a")]
    coords += [{"trial": labels} for labels in ([0, 0], [0.5, 1.5], ["a", "b"])]
    coords += [{"condition": ("trial", [1, 2])}, {"condition": ("time", ["a", "b", "c"])}]
    needed = ("condition", "time", "trial", "frame_duration", "px_per_deg")
    return [
        *[stimulus.assign_coords(change) for change in coords],
        *[stimulus.drop_vars(name) for name in needed],
        *[stimulus.isel({dim: []}) for dim in stimulus.dims],
        *[stimulus.isel({dim: 0}) for dim in stimulus.dims],
        *[stimulus.rename({dim: "other"}) for dim in stimulus.dims],
        *[stimulus.astype(kind) for kind in (int, complex, str, object, bool)],
        *[stimulus.where(stimulus.trial == 1, value) for value in (np.nan, np.inf, -np.inf)],
        *[stimulus.transpose("trial", "time", "x", "y"), stimulus.transpose()],
        *[stimulus.to_dataset(), stimulus.values, None, stimulus.stack(place=("y", "x"))],
    ]


def mislabelled(responses: xr.Dataset) -> list[Any]:
    """Return responses with wrong dimensions, coordinates, types and values, and with no trials."""
    times: list[Any] = [[0.02] * 4, [4.0, 3.0, 2.0, 1.0], [0.0, np.nan, 1.0, 2.0], list("abcd")]
    coords: list[dict[str, Any]] = [{"time": time} for time in times]
    coords += [{"trial": [0, 0]}, {"unit": [0, 1, 1]}]
    coords += [{"level": ("unit", levels)} for levels in ([0, 1, -1], [0.5, 1.0, 1.0], list("abc"))]
    coords += [{"population": ("unit", roles)} for roles in ([0, 1, 2], ["error", "x", "latent"])]
    coords += [{"population": ("trial", ["error", "latent"])}, {"condition": ("trial", [1, 2])}]
    rate = responses["rate"]
    holes = [rate.where(rate.unit != 1, value) for value in (np.nan, np.inf, -np.inf)]
    return [
        *[responses.assign_coords(change) for change in coords],
        *[
            responses.drop_vars(name)
            for name in ("rate", "time", "condition", "population", "level")
        ],
        *[responses.isel({dim: []}) for dim in rate.dims],
        *[responses.isel({dim: 0}) for dim in rate.dims],
        *[responses.rename({dim: "other"}) for dim in rate.dims],
        *[responses.assign(rate=hole) for hole in holes],
        *[responses.assign(rate=rate.astype(kind)) for kind in (int, complex, str, object)],
        *[responses.transpose("unit", "time", "trial"), rate, rate.values, None, {"rate": rate}],
    ]


SCHEMA = [
    Target(
        "schema",
        check_stimulus,
        {"stimulus": IMAGES},
        {"stimulus": relabelled(IMAGES)},
    ),
    Target(
        "schema",
        check_responses,
        {"responses": RESPONSES},
        {"responses": mislabelled(RESPONSES)},
    ),
    Target(
        "schema",
        make_responses,
        {"rate": np.ones((2, 4, 3)), "time": np.arange(4.0), "units": UNITS, "trial": TRIALS},
        {
            "rate": no_array(2, 4, 3),
            "time": no_array(4),
            "free_energy": no_array(2, 4),
            "units": st.sampled_from(
                [
                    {},
                    {"population": "error"},
                    {"level": 0},
                    {**UNITS, "level": [0, 1, -1]},
                    {**UNITS, "level": [0.0, 1.0, 1.0]},
                    {**UNITS, "population": ["error", "latents", "latent"]},
                    {**UNITS, "area": [1, 2, 3]},
                    {**UNITS, "x": np.zeros((3, 3))},
                ]
            ),
            "trial": st.sampled_from(
                [{}, {"condition": [1, 2]}, {"condition": ["a"]}, {"contrast": [0.7, 0.2]}]
            ),
        },
    ),
    Target(
        "schema",
        stimulus_array,
        {"values": np.full((2, 3, 4, 5), 0.5), "frame_duration": 0.02, "px_per_deg": 16.0},
        {
            "values": st.one_of(
                no_array(2, 3, 4, 5).filter(lambda a: len(shape_of(a) or ()) not in (3, 4))
            ),
            "frame_duration": NOT_POSITIVE,
            "px_per_deg": NOT_POSITIVE,
            "condition": st.one_of(st.integers(), st.just(["a"]), st.just(["a", "b", "c"])),
            "orientation": no_array(2).filter(lambda a: shape_of(a) not in ((), (2,))),
        },
    ),
    Target(
        "schema",
        select,
        {"responses": RESPONSES},
        {
            "population": NO_NAME.filter(lambda name: name is not None),
            "level": st.integers(2),
            "condition": NO_NAME.filter(lambda name: name is not None),
            "area": st.just("V1"),
            "layer": st.just("L4"),
            "time": st.one_of(
                st.floats(0.5, 9).map(lambda s: slice(s, None)),
                st.floats(-9, -0.1).map(lambda s: slice(None, s)),
                st.floats(0, 1),
            ),
        },
    ),
    Target(
        "schema",
        concat,
        {"parts": [RESPONSES, RESPONSES], "dim": "trial"},
        {
            "dim": NO_NAME,
            "parts": st.sampled_from(
                [
                    [],
                    [RESPONSES, RESPONSES.isel(unit=[0])],
                    [RESPONSES, RESPONSES.isel(time=[0, 1])],
                    [RESPONSES, RESPONSES.drop_vars("condition")],
                    [RESPONSES, 3],
                ]
            ),
        },
    ),
]

STIMULI = [
    Target(
        "stimuli",
        stimuli.bars,
        {**FIELD, "length": 0.2},
        {
            **BAD_FIELD,
            "length": NOT_POSITIVE,
            "width": NOT_POSITIVE,
            "orientation": NOT_REAL,
            "contrast": st.one_of(NOT_REAL, st.floats(1.1, 9.0), st.floats(-9.0, -1.1)),
            "background": NO_SHARE,
            "duration": NOT_POSITIVE,
        },
    ),
    Target(
        "stimuli",
        stimuli.gratings,
        {**FIELD, "spatial_frequency": 2.0},
        {
            **BAD_FIELD,
            "spatial_frequency": NEGATIVE,
            "orientation": NOT_REAL,
            "phase": NOT_REAL,
            "contrast": NO_SHARE,
            "diameter": NEGATIVE.filter(lambda value: value != np.inf),
            "surround_contrast": NO_SHARE,
        },
    ),
    Target(
        "stimuli",
        stimuli.white_noise,
        FIELD,
        {
            **BAD_FIELD,
            "n_trials": NO_COUNT,
            "n_frames": NO_COUNT,
            "contrast": NEGATIVE,
            "kind": NO_NAME,
            "block": NO_COUNT,
        },
    ),
    Target("stimuli", stimuli.m_sequence, {**FIELD, "order": 8}, {**BAD_FIELD, "order": NO_COUNT}),
    Target(
        "stimuli",
        stimuli.natural_patches,
        {**FIELD, "n": 1},
        {**BAD_FIELD, "n": NO_COUNT, "preprocessing": NO_NAME},
    ),
    Target(
        "stimuli",
        stimuli.natural_sequences,
        {**FIELD, "n": 1, "n_frames": 2},
        {**BAD_FIELD, "n": NO_COUNT, "n_frames": NO_COUNT, "diffusion": NEGATIVE},
    ),
    Target(
        "stimuli",
        stimuli.dead_leaves,
        {**FIELD, "n": 1, "radii": (0.2, 0.4)},
        {**BAD_FIELD, "n": NO_COUNT, "radii": st.sampled_from([(0.4, 0.2), (0.0, 1.0), (1.0,), 3])},
    ),
    Target(
        "stimuli",
        stimuli.oddball_sequence,
        {"n": 20},
        {
            "n": NO_COUNT,
            "deviant_probability": NO_SHARE,
            "standard": st.integers(50),
            "deviant": st.integers(50),
        },
    ),
]

CURVE = xr.DataArray([[0.2, 0.9, 0.5]], dims=("unit", "length"), coords={"length": [0.1, 0.2, 0.4]})
MEASURES = [
    Target(
        "measures",
        measures.end_stopping_index,
        {"curve": CURVE, "limit": 0.3},
        {
            "limit": NOT_REAL,
            "dim": NO_NAME.filter(lambda name: name is not None),
            "rectify": NO_NAME,
            "curve": st.sampled_from([CURVE.values, CURVE.where(CURVE > 0.3), 3]),
        },
    ),
    Target(
        "measures",
        measures.tuning_curve,
        {"responses": RESPONSES, "parameter": "condition", "rectify": "none"},
        {"parameter": NO_NAME, "rectify": NO_NAME, "responses": st.sampled_from([3, CURVE])},
    ),
    Target(
        "measures",
        measures.lifetime_sparseness,
        {"responses": RESPONSES, "rectify": "none"},
        {"rectify": NO_NAME, "responses": st.sampled_from([None, RESPONSES.rate])},
    ),
    Target(
        "measures",
        measures.response_triggered_average,
        {"responses": RESPONSES, "stimulus": NOISE},
        {"stimulus": st.sampled_from([STIMULUS.values, STIMULUS.isel(trial=[0]), None])},
    ),
]

SAMPLES = [stats.Sample({"a": np.arange(6.0)}) for _ in range(3)]
STATISTICS = [
    Target(
        "statistics",
        stats.hierarchical_bootstrap,
        {"samples": SAMPLES, "draws": 50},
        {"samples": st.sampled_from([[], 3, ["a"]]), "draws": NO_COUNT},
    ),
    Target(
        "statistics",
        stats.holm,
        {"p": [0.01, 0.2]},
        {"p": st.one_of(st.lists(st.floats(1.1, 9), min_size=1), st.just("a"), st.just([np.nan]))},
    ),
    Target(
        "statistics",
        stats.interval,
        {"draws": np.arange(100.0), "estimate": 50.0},
        {"draws": st.sampled_from([[], "a", [np.nan, 1.0]]), "level": NO_SHARE, "method": NO_NAME},
    ),
    Target(
        "statistics",
        stats.ks_similarity,
        {"x": [0.2, 0.7], "y": [0.4]},
        {"x": st.sampled_from([[], [np.nan], "a"])},
    ),
    Target(
        "statistics",
        Reference,
        {"status": "read", "source": "Nobody 1999"},
        {
            "status": NO_NAME,
            "source": st.just(""),
            "interval": st.tuples(st.floats(1, 2), st.floats(-2, 1)),
        },
    ),
    Target(
        "statistics",
        Requirement,
        {"name": "a", "statement": "b", "combine": len},
        {"direction": st.one_of(st.integers().filter(lambda i: abs(i) != 1), st.floats())},
    ),
    Target(
        "statistics",
        Control,
        {"name": "a", "statement": "b", "variant": "LN"},
        {"variant": st.none(), "transform": st.just(len)},
    ),
]

NAMES = [
    Target(
        "names",
        catalog.load,
        {"room": "circuits", "name": "linear_nonlinear"},
        {"room": NO_NAME, "name": st.text("abc_", max_size=9)},
    ),
    Target("names", catalog.names, {"room": "circuits"}, {"room": NO_NAME}),
    Target(
        "names",
        roster.variant,
        {"spec": "RB"},
        {"spec": st.text("ABRrao_", max_size=9).filter(lambda s: s not in ("RB",))},
    ),
    Target(
        "names",
        roster.Variant,
        {"label": "A", "circuit": "adaptation"},
        {"training": NO_NAME},
    ),
]
