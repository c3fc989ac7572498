"""Divisive normalization: the equation by hand, its inverse, its volume, its range."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsim.normalization import DivisiveNormalization


def make(rng, n=5, exponent=2.0):
    return DivisiveNormalization(
        rng.uniform(0, 2, (n, n)),
        semisaturation=rng.uniform(0.2, 4, n),
        exponent=exponent,
        gain=rng.uniform(0.2, 4, n),
    )


def test_the_equation_by_hand(rng):
    flow, x = make(rng, exponent=1.7), rng.normal(size=5)
    y = flow.forward(x)
    for i in range(5):
        pool = flow.semisaturation[i] ** 1.7
        pool += sum(flow.weights[i, j] * abs(x[j]) ** 1.7 for j in range(5))
        expected = flow.gain[i] * np.sign(x[i]) * abs(x[i]) ** 1.7 / pool
        np.testing.assert_allclose(y[i], expected, rtol=1e-12)


def test_one_unit_is_naka_rushton():
    flow = DivisiveNormalization(np.ones((1, 1)), semisaturation=0.3, exponent=2.5, gain=40.0)
    c = np.array([[0.0], [0.3], [0.7]])
    expected = 40 * c**2.5 / (0.3**2.5 + c**2.5)
    np.testing.assert_allclose(flow.forward(c), expected, rtol=1e-13)
    np.testing.assert_allclose(flow.forward(c)[1], 20.0)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 6),
    exponent=st.sampled_from([0.7, 1.0, 2.0, 3.3]),
    scale=st.floats(0.1, 3),
)
@settings(max_examples=80, deadline=None)
def test_inverse_undoes_forward(seed, n, exponent, scale):
    rng = np.random.default_rng(seed)
    flow = make(rng, n, exponent)
    x = scale * rng.normal(size=(4, n))
    np.testing.assert_allclose(flow.inverse(flow.forward(x)), x, rtol=1e-5, atol=1e-7)


def test_inverse_is_exact_at_moderate_contrast(rng):
    flow = make(rng)
    x = 0.5 * rng.normal(size=(50, 5))
    np.testing.assert_allclose(flow.inverse(flow.forward(x)), x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("exponent", [0.7, 1.0, 2.0, 3.3])
def test_log_det_agrees_with_autograd(rng, exponent):
    flow = make(rng, exponent=exponent)
    there = DivisiveNormalization(
        torch.tensor(flow.weights),
        torch.tensor(flow.semisaturation),
        exponent,
        torch.tensor(flow.gain),
    )
    x = rng.normal(size=(6, 5))
    expected = [
        torch.linalg.slogdet(torch.autograd.functional.jacobian(there.forward, torch.tensor(v)))[1]
        for v in x
    ]
    np.testing.assert_allclose(flow.log_det(x), np.array(expected), rtol=1e-10, atol=1e-10)
    inverse = flow.inverse(flow.forward(x))
    np.testing.assert_allclose(flow.log_det(inverse), flow.log_det(x), rtol=1e-8)


def test_log_det_at_zero(rng):
    x = np.array([0.5, 0.0, -0.3, 1.0, 2.0])
    assert make(rng, exponent=2.0).log_det(x) == -np.inf
    assert np.isfinite(make(rng, exponent=1.0).log_det(x))
    assert make(rng, exponent=0.7).log_det(x) == np.inf


def test_odd_monotone_bounded(rng):
    flow = DivisiveNormalization(np.ones((5, 5)), 0.7, 2.0, 4.0)
    x = rng.normal(size=(20, 5))
    np.testing.assert_allclose(flow.forward(-x), -flow.forward(x))
    assert np.abs(flow.forward(1e6 * x)).sum(-1).max() <= 4.0 + 1e-9
    np.testing.assert_allclose(np.abs(flow.forward(1e6 * x)).sum(-1), 4.0, rtol=1e-9)


def test_without_a_pool_it_is_a_power_law(rng):
    flow = DivisiveNormalization(np.zeros((5, 5)), 0.7, 3.0, 4.0)
    x = rng.normal(size=5)
    np.testing.assert_allclose(flow.forward(x), 4 * x**3 / 0.7**3, rtol=1e-12)


@pytest.mark.parametrize("to", [torch.tensor, array_api_strict.asarray])
def test_other_libraries_agree(rng, to):
    flow, x = make(rng), 0.5 * rng.normal(size=(4, 5))
    there = DivisiveNormalization(to(flow.weights), to(flow.semisaturation), 2.0, to(flow.gain))
    y = there.forward(to(x))
    assert type(y) is type(to(x))
    np.testing.assert_allclose(np.asarray(y), flow.forward(x), rtol=1e-12)
    np.testing.assert_allclose(np.asarray(there.inverse(y)), x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.asarray(there.log_det(to(x))), flow.log_det(x), rtol=1e-10)
    with pytest.raises(ValueError, match="Give a smaller y"):
        there.inverse(to(1e3 * np.ones(5)))


def test_beyond_saturation_is_refused():
    flow = DivisiveNormalization(np.ones((1, 1)), semisaturation=0.3, gain=4.0)
    np.testing.assert_allclose(flow.inverse(np.array([3.9])), 0.3 * np.sqrt(3.9 / 0.1))
    for y in (4.0, 4.1, -7.0, 1e6):
        with pytest.raises(ValueError, match="expected y in the range of forward"):
            flow.inverse(np.array([y]))
    two = DivisiveNormalization(np.ones((2, 2)), semisaturation=0.3, gain=4.0)
    # Each alone is below saturation, together they are not: the shares must sum to less than 1.
    two.inverse(np.array([1.9, 1.9]))
    with pytest.raises(ValueError, match="Give a smaller y"):
        two.inverse(np.array([2.1, 2.1]))


def test_refusals(rng):
    w = np.ones((3, 3))
    with pytest.raises(ValueError, match=r"weights of shape \(2, 3\), expected shape \(n, n\)"):
        DivisiveNormalization(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"weights down to -1, expected weights not below 0"):
        DivisiveNormalization(-w)
    with pytest.raises(ValueError, match="weights NaN or infinite"):
        DivisiveNormalization(w * np.nan)
    with pytest.raises(ValueError, match="exponent 0, expected a finite number above 0"):
        DivisiveNormalization(w, exponent=0.0)
    for name in ("semisaturation", "gain"):
        with pytest.raises(ValueError, match=f"{name} down to 0, expected numbers above 0"):
            DivisiveNormalization(w, **{name: 0.0})
        with pytest.raises(ValueError, match=rf"{name} of shape \(2,\), expected a number or"):
            DivisiveNormalization(w, **{name: np.ones(2)})
    flow = DivisiveNormalization(w)
    for method in (flow.forward, flow.inverse, flow.log_det):
        with pytest.raises(ValueError, match=r"of shape \(2,\), expected shape \(\.\.\., 3\)"):
            method(np.ones(2))
        with pytest.raises(TypeError, match="arrays of one library"):
            method(torch.ones(3, dtype=torch.float64))
        with pytest.raises(ValueError, match="NaN or infinite"):
            method(np.array([1.0, np.nan, 2.0]))
