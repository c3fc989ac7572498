"""Responses: what the schema takes and refuses, choosing, joining."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import pcsim
from pcsim.responses import (
    POPULATIONS,
    check_responses,
    concat,
    make_responses,
    select,
    stimulus_array,
)

UNITS = {
    "population": ["error_pos", "error_neg", "latent", "latent"],
    "level": [0, 0, 1, 2],
    "area": ["V1", "V1", "V1", "V2"],
    "x": [0.0, 1.0, 0.5, 0.5],
}


def example(n_trials: int = 3, n_times: int = 5, offset: float = 0.0) -> xr.Dataset:
    """Responses of four units whose rates say where they stand."""
    stimulus = stimulus_array(
        np.full((n_trials, 2, 4), 0.5),
        frame_duration=0.25,
        condition=["iso", "cross", "blank"][:n_trials],
        orientation=np.array([0.7, 2.1, np.nan])[:n_trials],
    )
    shape = (n_trials, n_times, 4)
    return make_responses(
        np.arange(np.prod(shape), dtype=float).reshape(shape) + offset,
        time=0.1 * np.arange(1, n_times + 1),
        units=UNITS,
        trial=stimulus,
        free_energy=np.ones(shape[:2]),
        attrs={"model": "example"},
    )


def test_labels_come_from_the_stimulus():
    r = example()
    assert r.rate.dims == ("trial", "time", "unit")
    assert r.condition.values.tolist() == ["iso", "cross", "blank"]
    np.testing.assert_array_equal(r.orientation, [0.7, 2.1, np.nan])
    assert r.frame_duration.item() == 0.25
    assert r.rate.attrs["units"] == "a.u."
    assert r.attrs == {"model": "example"}


def test_units_without_an_area_have_an_empty_one():
    r = make_responses(
        np.zeros((1, 1, 2)),
        time=[0.5],
        units={"population": "latent", "level": 1},
        trial={"condition": ["a"]},
    )
    assert r.area.values.tolist() == ["", ""]


def test_time_may_carry_frame_and_iteration():
    r = make_responses(
        np.zeros((1, 4, 1)),
        time={"time": [0.1, 0.2, 0.3, 0.4], "frame": [0, 0, 1, 1], "iteration": [0, 1, 0, 1]},
        units={"population": "latent", "level": 1},
        trial={"condition": ["a"]},
    )
    assert r.frame.dims == r.iteration.dims == ("time",)


def test_select_by_every_label():
    r = example()
    chosen = select(r, population=["latent", "error_pos"], area="V1", condition="cross")
    assert chosen.population.values.tolist() == ["error_pos", "latent"]
    np.testing.assert_array_equal(chosen.rate[0], r.rate.values[1][:, [0, 2]])
    assert select(r, level=[1, 2]).unit.values.tolist() == [2, 3]
    np.testing.assert_allclose(select(r, time=slice(0.2, 0.4)).time, [0.2, 0.3, 0.4])
    assert select(r).identical(r)


def test_select_leaves_its_input_alone_and_stays_lawful():
    r = example()
    before = r.copy(deep=True)
    check_responses(select(r, population="latent", time=slice(None, 0.3)))
    assert r.identical(before)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"population": "laten"}, r"one of 'error_neg', .*Did you mean 'latent'\?"),
        ({"population": ["latent", "output"]}, "found population 'output'"),
        ({"level": 7}, "expected one of '0', '1', '2'"),
        ({"area": "MT"}, "expected one of 'V1', 'V2'"),
        ({"layer": "L4"}, "expected a coordinate 'layer' along unit"),
        ({"condition": "plaid"}, "expected one of 'blank', 'cross', 'iso'"),
        ({"level": []}, "at least one level"),
        ({"time": slice(3.0, 4.0)}, r"a part of 0.1 to 0.5 s.*Widen"),
        ({"time": 0.2}, r"Use slice\(0.0, 0.2\)"),
        ({"population": "latent", "level": 0}, "found level 0"),
    ],
)
def test_select_never_returns_nothing(refused, labels, words):
    message = refused(select, example(), **labels)
    with pytest.raises((ValueError, TypeError), match=words):
        raise ValueError(message)


def test_concat_along_trials_then_selecting_gives_the_parts():
    a, b = example(), example(offset=1000.0)
    joined = concat([a, b])
    assert joined.trial.values.tolist() == list(range(6))
    np.testing.assert_array_equal(joined.rate[3:], b.rate)
    np.testing.assert_array_equal(joined.free_energy[:3], a.free_energy)


def test_concat_along_units_and_time():
    r = example()
    parts = [select(r, level=0), select(r, level=[1, 2])]
    assert concat(parts, dim="unit").drop_attrs().identical(r.drop_attrs())
    early, late = select(r, time=slice(None, 0.25)), select(r, time=slice(0.25, None))
    assert concat([early, late], dim="time").drop_attrs().identical(r.drop_attrs())


@pytest.mark.parametrize(
    ("parts", "dim", "words"),
    [
        (lambda r: [], "trial", "found no responses"),
        (lambda r: [r, r], "level", "one of 'time', 'trial', 'unit'"),
        (lambda r: [r, r.drop_vars("orientation")], "trial", "orientation in some parts only"),
        (lambda r: [r, r.drop_vars("free_energy")], "trial", "free_energy in some parts only"),
        (lambda r: [r, select(r, level=1)], "trial", "that differs between parts"),
        (lambda r: [r, r.isel(unit=[1, 0, 2, 3])], "trial", "that differs between parts"),
        (lambda r: [r, r.isel(trial=[1, 0, 2])], "unit", "that differs between parts"),
        (lambda r: [r, r], "time", "strictly increasing"),
        (lambda r: [r, r.isel(time=slice(2))], "trial", "that differs between parts"),
    ],
)
def test_concat_fills_and_drops_nothing(refused, parts, dim, words):
    assert words in refused(concat, parts(example()), dim)


def _no_unit(r: xr.Dataset) -> xr.Dataset:
    return r.isel(unit=[])


BROKEN = {
    "not a dataset": (lambda r: r.rate, "xarray.Dataset"),
    "an array": (lambda r: r.rate.values, "xarray.Dataset"),
    "no rate": (lambda r: r.drop_vars("rate"), "expected 'rate'"),
    "turned": (lambda r: r.transpose("unit", "time", "trial"), "Use transpose"),
    "turned free energy": (
        lambda r: r.assign(free_energy=r.free_energy.transpose("time", "trial")),
        "Use transpose",
    ),
    "integers": (lambda r: r.assign(rate=r.rate.astype(int)), "expected floats"),
    "NaN": (lambda r: r.assign(rate=r.rate.where(r.rate != 7)), "1 of 60 entries of rate"),
    "infinite": (lambda r: r.assign(rate=r.rate / 0.0), "NaN or infinite"),
    "no trials": (lambda r: r.isel(trial=[]), "rate with no trial"),
    "no units": (_no_unit, "rate with no unit"),
    "time twice": (lambda r: r.assign_coords(time=[0.1, 0.2, 0.2, 0.3, 0.4]), "[0.1, 0.2, 0.2"),
    "time back": (lambda r: r.isel(time=[1, 0, 2, 3, 4]), "strictly increasing"),
    "time of any size": (
        lambda r: r.assign_coords(time=[1e308, -1e308, 0.3, 0.4, 0.5]),
        "strictly increasing",
    ),
    "time NaN": (lambda r: r.assign_coords(time=[0.1, np.nan, 0.3, 0.4, 0.5]), "finite"),
    "dates": (
        lambda r: r.assign_coords(time=np.arange(5).astype("datetime64[s]").astype("M8[ns]")),
        "seconds as floats",
    ),
    "no time": (lambda r: r.drop_vars("time"), "a coordinate 'time' along time"),
    "no condition": (lambda r: r.drop_vars("condition"), "a coordinate 'condition'"),
    "condition numbers": (lambda r: r.assign_coords(condition=("trial", [1, 2, 3])), "text"),
    "trial twice": (lambda r: r.assign_coords(trial=[0, 1, 1]), "each once"),
    "trial text": (lambda r: r.assign_coords(trial=list("abc")), "integers"),
    "unit twice": (lambda r: r.assign_coords(unit=[0, 1, 1, 2]), "each once"),
    "no population": (lambda r: r.drop_vars("population"), "a coordinate 'population'"),
    "unknown role": (
        lambda r: r.assign_coords(population=("unit", ["latents"] * 4)),
        "Did you mean 'latent'",
    ),
    "level below": (lambda r: r.assign_coords(level=("unit", [0, -1, 1, 2])), "from 0 on"),
    "level float": (lambda r: r.assign_coords(level=("unit", [0.0, 1, 1, 2])), "integers"),
    "area numbers": (lambda r: r.assign_coords(area=("unit", [1, 2, 3, 4])), "area of dtype"),
    "area on trial": (lambda r: r.assign_coords(area=("trial", list("abc"))), "along unit"),
    "two-dimensional label": (
        lambda r: r.assign_coords(place=(("trial", "unit"), np.zeros((3, 4)))),
        "flat labels",
    ),
    "levels of labels": (
        lambda r: r.set_index(unit=["population", "level"]),
        "reset_index",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_responses_are_refused(refused, name):
    break_it, words = BROKEN[name]
    with np.errstate(all="ignore"):
        broken = break_it(example())
    message = refused(check_responses, broken)
    assert words in message
    assert message.startswith("check_responses: found ")


def test_every_role_and_its_signed_halves_are_known():
    for role in POPULATIONS:
        for end in ("", "_pos", "_neg"):
            r = example().assign_coords(population=("unit", [role + end] * 4))
            assert check_responses(r) is r


@given(
    shape=st.tuples(*[st.integers(0, 3)] * 3),
    n_time=st.integers(0, 3),
    n_unit=st.integers(0, 3),
    n_condition=st.integers(0, 3),
)
def test_sizes_that_do_not_fit_are_refused(refused, shape, n_time, n_unit, n_condition):
    arguments = {
        "time": 0.1 * np.arange(n_time),
        "units": {"population": ["error"] * n_unit, "level": [0] * n_unit},
        "trial": {"condition": ["a"] * n_condition},
    }
    if shape == (n_condition, n_time, n_unit) and 0 not in shape:
        assert make_responses(np.zeros(shape), **arguments).rate.shape == shape
    else:
        refused(make_responses, np.zeros(shape), **arguments)


@pytest.mark.parametrize(
    "rate", [np.zeros(3), "rates", None, [[1.0], [1.0, 2.0]], np.zeros((1, 1, 1), complex)]
)
def test_rates_that_are_none_are_refused(refused, rate):
    refused(
        make_responses,
        rate,
        time=[0.1],
        units={"population": "error", "level": 0},
        trial={"condition": ["a"]},
    )


def test_the_package_offers_the_same_functions():
    assert pcsim.select is select
    assert pcsim.check_responses is check_responses
