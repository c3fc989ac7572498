"""Hundreds of malformed inputs over all rooms: each is refused in one form, by our own code.

Every target is a call that works. One of its arguments at a time is replaced by something broken
that hypothesis draws; the call must end in a ValueError or TypeError of the form ``<where>:
<found>, expected <what>. <What to do.>``, raised in our sources (`refused` looks at both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pcsim import catalog, filters, inference, measures, priors, roster, stats, stimuli, storage
from pcsim.circuit import Circuit, Population, Projection, settle
from pcsim.hypothesis import Control, Reference, Requirement
from pcsim.kinds import DivisiveNormalization, Error, Latent, Leaky, TemporalRelay
from pcsim.nonlinearity import nonlinearity, power, soft_threshold
from pcsim.normalization import DivisiveNormalization as Normalization
from pcsim.responses import (
    check_responses,
    concat,
    make_responses,
    open_responses,
    save,
    select,
    stimulus_array,
)
from pcsim.stimulus import check_stimulus
from pcsim.verdict import read_csv
from pcsim.whitening import TemporalAR, Whitening

NOT_FINITE = st.sampled_from([np.nan, np.inf, -np.inf])
NO_NUMBER = st.one_of(st.text(max_size=6), st.just(1j), st.just(object), st.just({}))
NOT_REAL = st.one_of(NOT_FINITE, NO_NUMBER)
NOT_POSITIVE = st.one_of(NOT_REAL, st.floats(max_value=0.0, allow_infinity=False))
NEGATIVE = st.one_of(NOT_REAL, st.floats(max_value=-1e-6, allow_infinity=False))
NO_SHARE = st.one_of(NEGATIVE, st.floats(min_value=1.0 + 1e-6, allow_infinity=False))
NO_COUNT = st.one_of(st.integers(max_value=0), st.floats(), NO_NUMBER, st.none(), st.just(True))
NO_NAME = st.one_of(st.text(max_size=8).map(lambda s: f"no {s}"), st.integers(), st.none())
NO_SHAPE = st.one_of(
    st.tuples(st.integers(max_value=0), st.integers(-3, 9)),
    st.lists(st.integers(1, 9), max_size=1).map(tuple),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(st.floats(), st.integers(1, 9)),
    st.text(max_size=3),
    st.none(),
)


def shape_of(value: Any) -> tuple[int, ...] | None:
    """Return the shape of what is an array, None of what is ragged."""
    try:
        return np.shape(value)
    except ValueError:
        return None


def no_array(*shape: int) -> st.SearchStrategy[Any]:
    """Draw what is no finite array of this shape: another shape, a hole, text, ragged rows."""
    good = np.linspace(0.2, 0.8, int(np.prod(shape))).reshape(shape)

    def with_hole(place: int, value: float) -> Any:
        broken = good.copy()
        broken.flat[place % broken.size] = value
        return broken

    other = st.lists(st.integers(0, 5), min_size=0, max_size=len(shape) + 1).map(tuple)
    return st.one_of(
        st.builds(with_hole, st.integers(0, good.size - 1), NOT_FINITE),
        other.filter(lambda s: s != shape and s[-len(shape) :] != shape).map(np.ones),
        st.sampled_from(["text", [[1.0], [1.0, 2.0]], np.full(shape, 1j), np.full(shape, "a")]),
    )


@st.composite
def no_precision(draw: st.DrawFn, n: int) -> Any:
    """Draw what is no precision of `n` dimensions: negative, indefinite, lopsided, mis-sized."""
    kind = draw(st.sampled_from(["scalar", "vector", "indefinite", "lopsided", "size", "hole"]))
    if kind == "scalar":
        return draw(st.one_of(NOT_FINITE, st.floats(max_value=0.0, allow_infinity=False)))
    place = draw(st.integers(0, n - 1))
    low = draw(st.floats(-4.0, -0.2))
    if kind == "vector":
        return np.where(np.arange(n) == place, low, 0.7)
    if kind == "size":
        size = draw(st.integers(1, 6).filter(lambda s: s != n))
        return draw(st.sampled_from([np.full(size, 0.7), 4.0 * np.eye(size), np.ones((n, n, n))]))
    turn = np.linalg.qr(np.random.default_rng(place).normal(size=(n, n)))[0]
    if kind == "indefinite":
        return (turn * np.where(np.arange(n) == place, low, 4.0)) @ turn.T
    matrix = 4.0 * np.eye(n)
    matrix[place, (place + 1) % n] = low if kind == "lopsided" else np.nan
    return matrix


@dataclass(frozen=True)
class Target:
    """A call that works, and for some of its arguments what breaks it."""

    room: str
    call: Callable[..., Any]
    good: Mapping[str, Any]
    bad: Mapping[str, st.SearchStrategy[Any] | list[Any]]


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

LEVEL = {"weights": np.array([[0.7, 0.2], [-0.4, 0.9], [0.3, 0.1]]), "precision": 0.7}
TWO = inference.Hierarchy(
    levels=(inference.Level(**LEVEL),), priors=(inference.GaussianPrior(precision=4.0),)
)


def hierarchy_of(**changes: Any) -> Any:
    """Run inference in a hierarchy of one level with these parts."""
    level = inference.Level(**{**LEVEL, **changes.pop("level", {})})
    prior = changes.pop("prior", inference.GaussianPrior(precision=4.0))
    hierarchy = inference.Hierarchy(levels=(level,), priors=(prior,))
    return inference.map_exact(hierarchy, np.array([0.4, -0.2, 0.7]))


MAPS = (inference.map_gradient, inference.map_gauss_newton, inference.map_exact)
INFERENCE = [
    Target(
        "inference",
        lambda precision: hierarchy_of(level={"precision": precision}),
        {"precision": 0.7},
        {"precision": no_precision(3)},
    ),
    Target(
        "inference",
        lambda weights: hierarchy_of(level={"weights": weights}),
        {"weights": LEVEL["weights"]},
        {
            "weights": no_array(3, 2).filter(
                lambda w: (shape_of(w) or ())[:1] != (3,) or len(shape_of(w)) != 2
            )
        },
    ),
    Target(
        "inference",
        lambda precision: hierarchy_of(prior=inference.GaussianPrior(precision=precision)),
        {"precision": 4.0},
        {"precision": no_precision(2)},
    ),
    Target(
        "inference",
        lambda alpha: inference.map_gradient(
            replace(TWO, priors=(inference.SparsePrior(alpha=alpha),)), np.ones(3)
        ),
        {"alpha": 0.7},
        {"alpha": NEGATIVE},
    ),
    Target("inference", priors.check_precision, {"where": "a", "name": "b"}, {"value": NEGATIVE}),
    *[
        Target(
            "inference",
            call,
            {"hierarchy": TWO, "x": np.array([0.4, -0.2, 0.7])},
            {
                "x": no_array(3),
                "clamp": st.one_of(
                    st.builds(dict, st.just([(7, np.zeros(2))])),
                    st.builds(lambda a: {1: a}, no_array(2)),
                ),
            },
        )
        for call in MAPS
    ],
    Target(
        "inference",
        inference.free_energy,
        {"hierarchy": TWO, "states": [np.zeros(3), np.zeros(2)]},
        {"states": st.sampled_from([[], [np.zeros(3)], [np.zeros(3), np.zeros(4)], [1.0, 2.0]])},
    ),
    Target("inference", nonlinearity, {"which": "tanh"}, {"which": NO_NAME}),
    Target("inference", soft_threshold, {"lam": 0.7}, {"lam": NEGATIVE}),
    Target("inference", power, {"n": 2.0}, {"n": NOT_POSITIVE}),
]

DATA = np.random.default_rng(0).normal(size=(50, 4))
FLOWS = [
    Target(
        "flows",
        lambda data, **options: Whitening(**options).fit(data),
        {"data": DATA},
        {
            "data": no_array(50, 4).filter(lambda d: len(shape_of(d) or ()) < 2),
            "kind": NO_NAME,
            "ridge": NEGATIVE,
        },
    ),
    Target(
        "flows",
        lambda x: Whitening().fit(DATA).forward(x),
        {"x": DATA},
        {"x": no_array(4)},
    ),
    Target(
        "flows",
        lambda order: TemporalAR(order=order).fit(DATA),
        {"order": 2},
        {"order": NO_COUNT},
    ),
    Target(
        "flows",
        lambda x, **options: Normalization(**options).forward(x),
        {"x": np.full((2, 4), 0.7), "weights": np.full((4, 4), 0.2)},
        {
            "x": no_array(4),
            "weights": no_array(4, 4),
            "semisaturation": NOT_POSITIVE,
            "exponent": NOT_POSITIVE,
            "gain": NOT_POSITIVE,
        },
    ),
]

FILTERS = [
    Target(
        "filters",
        filters.gabor,
        {"shape": (8, 9)},
        {
            "shape": NO_SHAPE,
            "x": NOT_REAL,
            "sigma": NOT_POSITIVE,
            "frequency": NEGATIVE,
            "orientation": NOT_REAL,
            "phase": NOT_REAL,
            "aspect": NOT_POSITIVE,
        },
    ),
    Target(
        "filters",
        filters.difference_of_gaussians,
        {"size": 9},
        {"sigma_center": NOT_POSITIVE, "sigma_surround": NOT_POSITIVE, "weight": NOT_REAL},
    ),
    Target(
        "filters",
        filters.gaussian_window,
        {"shape": (8, 9), "sigma": 2.0},
        {"shape": NO_SHAPE, "sigma": NOT_POSITIVE},
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


@dataclass(frozen=True, kw_only=True)
class Pair(Circuit):
    """Two populations whose every part can be broken."""

    changes: Any = None
    wiring: Any = None

    @property
    def populations(self) -> tuple[Population, ...]:
        changes = self.changes or {}
        first = Population("first", Leaky(0.02), 4, 0, "input")
        return (
            replace(first, **changes),
            Population("second", Leaky(0.03), 3, 1, "output"),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        wiring = {"source": "first", "target": "second", "weights": np.full((3, 4), 0.2)}
        wiring = {"port": "drive", **wiring, **(self.wiring or {})}
        return (Projection("stimulus", "first", port="drive"), Projection(**wiring))


def run_pair(**fields: Any) -> Any:
    """Run the circuit; its parts are checked then."""
    return Pair(**fields).run(STIMULUS)


CIRCUITS = [
    Target(
        "circuits",
        run_pair,
        {},
        {
            "dt": NOT_POSITIVE,
            "integrator": NO_NAME,
            "record_dt": NOT_POSITIVE.filter(lambda v: v is not None),
        },
    ),
    Target(
        "circuits",
        lambda **changes: run_pair(changes=changes),
        {},
        {
            "name": st.sampled_from(["second", "stimulus", "", 3]),
            "size": NO_COUNT,
            "level": st.one_of(st.integers(max_value=-1), st.floats()),
            "population": NO_NAME,
            "x": no_array(4).filter(lambda a: shape_of(a) != (4,)),
            "noise": NEGATIVE,
        },
    ),
    Target(
        "circuits",
        lambda **wiring: run_pair(wiring=wiring),
        {},
        {
            "source": NO_NAME,
            "target": NO_NAME,
            "port": NO_NAME,
            "reads": NO_NAME,
            "gate": NO_NAME.filter(lambda name: name is not None),
            "sign": NOT_REAL,
            "delay": NEGATIVE,
            "weights": no_array(3, 4),
        },
    ),
    Target(
        "circuits",
        lambda kind: run_pair(changes={"kind": kind}),
        {"kind": Leaky(0.02)},
        {
            "kind": st.one_of(
                st.builds(Leaky, tau=NOT_POSITIVE),
                st.builds(Leaky, st.just(0.02), threshold=NOT_REAL),
                st.builds(lambda name: Leaky(0.02, nonlinearity=name), NO_NAME),
                st.builds(DivisiveNormalization, semisaturation=NOT_POSITIVE),
                st.builds(DivisiveNormalization, exponent=NOT_POSITIVE),
                st.builds(TemporalRelay, tau_trace=NOT_POSITIVE),
                st.builds(Error, st.just(0.02), variance=NEGATIVE),
                st.builds(lambda p: Error(None, precision=p), no_precision(4)),
                st.builds(Latent, tau=NOT_POSITIVE),
                st.sampled_from([None, "leaky", 3]),
            )
        },
    ),
    Target(
        "circuits",
        lambda stimulus, record=None: Pair().run(stimulus, record=record),
        {"stimulus": STIMULUS},
        {
            "stimulus": st.sampled_from(
                [
                    STIMULUS.values,
                    STIMULUS.isel(feature=[0, 1]),
                    STIMULUS.isel(trial=[]),
                    STIMULUS.where(STIMULUS.trial == 0),
                    STIMULUS.drop_vars("condition"),
                    IMAGES,
                    3,
                ]
            ),
            "record": st.lists(NO_NAME, min_size=1, max_size=2),
        },
    ),
    Target(
        "circuits",
        lambda **options: settle(Pair(), STIMULUS.isel(time=[0]), **options),
        {},
        {"tol": NOT_POSITIVE, "max_time": NOT_POSITIVE, "record": st.just(["third"])},
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

TARGETS = SCHEMA + INFERENCE + FLOWS + FILTERS + STIMULI + CIRCUITS + MEASURES + STATISTICS + NAMES
ROOMS = sorted({target.room for target in TARGETS})
EXAMPLES = 12
"""Malformed values to draw for each argument of each target, fewer where there are fewer."""
CASES = {
    "circuits": 150,
    "filters": 60,
    "flows": 60,
    "inference": 150,
    "measures": 40,
    "names": 40,
    "schema": 150,
    "statistics": 60,
    "stimuli": 300,
}
"""Distinct malformed inputs that each room must have refused, at the least."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.room}-{t.call.__name__}")
def test_the_unbroken_call_works(target):
    good = dict(target.good)
    if target.call is priors.check_precision:
        good["value"] = 0.7
    target.call(**good)


@pytest.mark.parametrize("room", ROOMS)
def test_malformed_input_is_refused(refused, room):
    targets = [target for target in TARGETS if target.room == room]
    seen: set[str] = set()
    slips: dict[str, str] = {}
    for number, target in enumerate(targets):
        for name, values in target.bad.items():
            call = f"{target.call.__qualname__} #{number}: {name}"
            for value in drawn(values):
                seen.add(f"{call} {value!r}")
                try:
                    refused(target.call, **{**target.good, name: value})
                except (Exception, pytest.fail.Exception) as error:
                    said = f"{type(error).__name__}: {error!s:.300}"
                    slips.setdefault(call, f"{value!r:.80} gave {said}")
    assert not slips, "\n".join(f"{call} = {slip}" for call, slip in slips.items())
    assert len(seen) >= CASES[room], f"only {len(seen)} inputs"


def drawn(values: st.SearchStrategy[Any] | list[Any]) -> list[Any]:
    """Draw the same values on every machine; of a list all."""
    if isinstance(values, list):
        return values
    found: list[Any] = []

    @settings(max_examples=EXAMPLES, phases=[Phase.generate])
    @given(value=values)
    def keep(value: Any) -> None:
        found.append(value)

    keep()
    return found


def test_there_are_two_hundred():
    assert set(CASES) == set(ROOMS)
    assert sum(CASES.values()) >= 200


@pytest.mark.parametrize(
    ("name", "read"),
    [("r.nc", open_responses), ("r.json", storage.read_json), ("v.csv", read_csv)],
)
def test_damaged_files_are_refused_and_nothing_is_left(refused, tmp_path, name, read):
    if name == "r.nc":
        save(RESPONSES, tmp_path / name)
    else:
        (tmp_path / name).write_text('{"a": [1, 2, 3]}' if name == "r.json" else "a,b\n1,2\n")
    whole = (tmp_path / name).read_bytes()

    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(length=st.integers(0, len(whole) - 1))
    def check(length: int) -> None:
        (tmp_path / name).write_bytes(whole[:length])
        refused(read, tmp_path / name)

    check()
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_refused_writing_leaves_nothing(refused, tmp_path):
    refused(save, RESPONSES.isel(trial=[]), tmp_path / "r.nc")
    refused(save, RESPONSES, tmp_path / "r.xyz")
    refused(storage.write_json, tmp_path / "r.json", {"a": np.nan})
    assert list(tmp_path.iterdir()) == []
