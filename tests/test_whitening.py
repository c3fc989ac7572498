"""Whitening: exact relations of every kind, determinants against autograd, refusals."""

from __future__ import annotations

import re

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from pcsim.whitening import FrameDifference, SpatioTemporal, TemporalAR, Whitening

KINDS = ("zca", "pca", "cholesky")
kinds = pytest.mark.parametrize("kind", KINDS)


def mixed(rng, n=6, samples=300):
    return rng.normal(size=(samples, n)) @ rng.normal(size=(n, n)) + rng.normal(size=n)


@kinds
@pytest.mark.parametrize("rotation", [None, 7])
def test_output_is_white(rng, kind, rotation):
    data = mixed(rng)
    y = Whitening(kind, rotation=rotation).fit(data).forward(data)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(y.T @ y / len(y), np.eye(6), atol=1e-9)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 8),
    kind=st.sampled_from(KINDS),
    ridge=st.sampled_from([0.0, 0.1, 4.0]),
    rotation=st.sampled_from([None, 3]),
)
@settings(max_examples=60, deadline=None)
def test_laws_hold_for_any_data(seed, n, kind, ridge, rotation):
    rng = np.random.default_rng(seed)
    data = mixed(rng, n, 40 + 10 * n)
    white = Whitening(kind, ridge, rotation=rotation).fit(data)
    x = data[:7]
    np.testing.assert_allclose(white.inverse(white.forward(x)), x, atol=1e-10 * np.abs(x).max())
    log_det = np.linalg.slogdet(white.filters)[1]
    np.testing.assert_allclose(white.log_det(x), np.full(7, log_det), rtol=1e-9, atol=1e-9)
    covariance = np.cov(data.T, bias=True).reshape(n, n)
    ridged = covariance + ridge * np.trace(covariance) / n * np.eye(n)
    whitened = white.filters @ ridged @ white.filters.T
    np.testing.assert_allclose(whitened, np.eye(n), atol=1e-7)


def test_forms_of_the_filters(rng):
    data = mixed(rng)
    covariance = np.cov(data.T, bias=True)
    zca, pca, cholesky = (Whitening(kind).fit(data).filters for kind in KINDS)
    np.testing.assert_allclose(zca, zca.T, atol=1e-13)
    assert np.linalg.eigvalsh(zca).min() > 0
    np.testing.assert_allclose(cholesky, np.tril(cholesky), atol=0)
    assert np.diag(cholesky).min() > 0
    gram = pca @ pca.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-10)
    np.testing.assert_allclose(1 / np.diag(gram), np.linalg.eigvalsh(covariance)[::-1], rtol=1e-8)


def test_cholesky_output_is_the_surprise_given_earlier_features(rng):
    data = mixed(rng)
    y = Whitening("cholesky").fit(data).forward(data)
    centred = data - data.mean(0)
    for i in range(6):
        past = centred[:, :i]
        fit = past @ np.linalg.lstsq(past, centred[:, i], rcond=None)[0] if i else 0.0
        residual = centred[:, i] - fit
        np.testing.assert_allclose(y[:, i], residual / residual.std(), atol=1e-8)


def test_zca_stays_closest_to_the_input(rng):
    data = mixed(rng)
    centred = data - data.mean(0)
    away = [
        np.mean((Whitening(kind, rotation=r).fit(data).forward(data) - centred) ** 2)
        for kind, r in (("zca", None), ("pca", None), ("cholesky", None), ("zca", 1), ("zca", 2))
    ]
    assert np.argmin(away) == 0


@pytest.mark.parametrize("unit", ["relative", "absolute"])
def test_ridge_units(rng, unit):
    data = mixed(rng)
    covariance = np.cov(data.T, bias=True)
    scale = np.trace(covariance) / 6 if unit == "relative" else 1.0
    white = Whitening("zca", 0.3, unit).fit(data)
    values = np.linalg.eigvalsh(covariance) + 0.3 * scale
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(white.filters)), values[::-1] ** -0.5)


def test_known_covariance(rng):
    covariance = np.array([[4.0, 1.2], [1.2, 0.7]])
    white = Whitening("zca").fit_covariance(covariance, np.array([3.0, -1.0]))
    np.testing.assert_allclose(white.filters @ covariance @ white.filters, np.eye(2), atol=1e-13)
    np.testing.assert_allclose(white.forward(np.array([3.0, -1.0])), 0, atol=1e-15)


@kinds
def test_rotation(rng, kind):
    data = mixed(rng)
    plain, turned = Whitening(kind).fit(data), Whitening(kind, rotation=5).fit(data)
    turn = turned.filters @ np.linalg.inv(plain.filters)
    np.testing.assert_allclose(turn @ turn.T, np.eye(6), atol=1e-9)
    assert np.abs(turn - np.eye(6)).max() > 0.1
    again = Whitening(kind, rotation=turn).fit(data)
    np.testing.assert_allclose(again.filters, turned.filters, atol=1e-8)
    other = Whitening(kind, rotation=6).fit(data)
    assert np.abs(other.filters - turned.filters).max() > 1e-3


def jacobian_log_det(flow, x):
    n = x.size
    jacobian = torch.autograd.functional.jacobian(
        lambda v: flow.forward(v.reshape(x.shape)).reshape(n), torch.tensor(x).reshape(n)
    )
    return float(torch.linalg.slogdet(jacobian)[1])


@kinds
def test_log_det_agrees_with_autograd(rng, kind):
    data = mixed(rng)
    flow = Whitening(kind, rotation=4).fit(torch.tensor(data))
    np.testing.assert_allclose(jacobian_log_det(flow, data[0]), flow.log_det(torch.tensor(data[0])))


@kinds
@pytest.mark.parametrize("to", [torch.tensor, array_api_strict.asarray])
def test_other_libraries_agree(rng, kind, to):
    data = mixed(rng)
    mine, theirs = (Whitening(kind, 0.1, rotation=2).fit(d) for d in (data, to(data)))
    y = theirs.forward(to(data))
    assert type(y) is type(to(data))
    np.testing.assert_allclose(np.asarray(y), mine.forward(data), atol=1e-9)
    np.testing.assert_allclose(np.asarray(theirs.inverse(y)), data, atol=1e-9)
    np.testing.assert_allclose(np.asarray(theirs.log_det(to(data))), mine.log_det(data), rtol=1e-10)


@kinds
def test_too_few_samples_are_refused_and_the_named_ridge_does(rng, kind):
    data = rng.normal(size=(4, 6))
    for unit in ("relative", "absolute"):
        with pytest.raises(
            ValueError, match=r"expected a positive definite one\. .* would do"
        ) as e:
            Whitening(kind, ridge_unit=unit).fit(data)
        ridge = float(re.search(r"(\S+) would do as ridge", str(e.value)).group(1))
        white = Whitening(kind, ridge, unit).fit(data)
        np.testing.assert_allclose(white.inverse(white.forward(data)), data, atol=1e-9)


def test_indefinite_covariance_names_a_ridge_that_does():
    bad = np.array([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="eigenvalues from -1 to 3 at ridge 0") as caught:
        Whitening("cholesky").fit_covariance(bad)
    ridge = float(re.search(r"(\S+) would do", str(caught.value)).group(1))
    assert 1 < ridge <= 2
    Whitening("cholesky", ridge).fit_covariance(bad)


def test_refusals(rng):
    data = mixed(rng)
    with pytest.raises(ValueError, match="Did you mean 'zca'"):
        Whitening("zcaa")
    with pytest.raises(ValueError, match="found ridge -1"):
        Whitening(ridge=-1.0)
    with pytest.raises(ValueError, match="ridge_unit 'percent', expected one of 'absolute', 'rel"):
        Whitening(ridge_unit="percent")
    with pytest.raises(ValueError, match=r"data of shape \(6,\), expected at least 2 axes"):
        Whitening().fit(data[0])
    with pytest.raises(ValueError, match=r"data of shape \(0, 6\), expected at least one entry"):
        Whitening().fit(data[:0])
    with pytest.raises(ValueError, match="entries of data NaN or infinite"):
        Whitening().fit(np.where(data > 1, np.inf, data))
    with pytest.raises(ValueError, match="The data do not vary"):
        Whitening(ridge=0.1).fit(np.ones((9, 3)))
    with pytest.raises(ValueError, match=r"covariance of shape \(2, 3\)"):
        Whitening().fit_covariance(np.ones((2, 3)))
    with pytest.raises(ValueError, match="differs from its transpose by 1"):
        Whitening().fit_covariance(np.array([[4.0, 1.0], [0.0, 4.0]]))
    with pytest.raises(ValueError, match=r"mean of shape \(3,\)"):
        Whitening().fit_covariance(np.eye(2) * 4, np.zeros(3))
    with pytest.raises(ValueError, match=r"rotation of shape \(6, 6\) that is not orthogonal"):
        Whitening(rotation=np.ones((6, 6))).fit(data)
    with pytest.raises(ValueError, match=r"rotation of shape \(3, 3\), expected an orthogonal \(6"):
        Whitening(rotation=np.eye(3)).fit(data)
    white = Whitening().fit(data)
    for method in (white.forward, white.inverse, white.log_det):
        with pytest.raises(ValueError, match=r"of shape \(300, 5\), expected shape \(\.\.\., 6\)"):
            method(data[:, :5])
        with pytest.raises(TypeError, match="arrays of one library"):
            method(torch.tensor(data))


def autoregressive(rng, a, sigma, n_time, n_trials=1, burn=200):
    x = np.zeros((n_trials, n_time + burn, 1))
    noise = sigma * rng.normal(size=x.shape)
    for t in range(x.shape[1]):
        past = sum(a[k] * x[:, t - 1 - k] for k in range(len(a)) if t > k)
        x[:, t] = past + noise[:, t]
    return x[:, burn:]


def test_ar_recovers_known_coefficients(rng):
    a, sigma = (1.2, -0.5), 0.7
    x = autoregressive(rng, a, sigma, 40_000) + 3.0
    fitted = TemporalAR(order=2).fit(x)
    np.testing.assert_allclose(fitted.coefficients[2, :, 0], a, atol=4 * np.sqrt(1 / 40_000))
    np.testing.assert_allclose(fitted.sigma[2, 0], sigma, rtol=4 * np.sqrt(0.5 / 40_000))
    y = fitted.forward(x)[0, :, 0]
    lags = [np.mean(y[k:] * y[: len(y) - k]) for k in range(6)]
    np.testing.assert_allclose(lags, [1, 0, 0, 0, 0, 0], atol=4 / np.sqrt(40_000) * np.sqrt(2))


@pytest.mark.parametrize("order", [1, 2, 5])
def test_ar_whitens_the_fitted_process_exactly_from_frame_zero(rng, order):
    # Linear map of a sequence whose autocovariance is that of the fit: identity covariance, if the
    # process is autoregressive of that order. Its later lags follow from the recursion.
    fitted = TemporalAR(order).fit(rng.normal(size=(3, 60, 1)).cumsum(axis=1))
    n_time = 12
    matrix = fitted.forward(np.eye(n_time)[:, :, None] + fitted.mean)[..., 0].T
    a = fitted.coefficients[order, :, 0]
    lags = list(autocovariance_of(a, fitted.sigma[order, 0], order))
    while len(lags) < n_time:
        lags.append(sum(a[k] * lags[-1 - k] for k in range(order)))
    covariance = toeplitz(lags)
    np.testing.assert_allclose(matrix @ covariance @ matrix.T, np.eye(n_time), atol=1e-7)


def autocovariance_of(a, sigma, order):
    """Lags 0 to p of a stationary AR(p): the fixed point of its companion form (Lyapunov)."""
    companion = np.vstack([a, np.eye(order)[:-1]]) if order > 1 else np.array([a])
    noise = np.zeros((order, order))
    noise[0, 0] = sigma**2
    whole = np.linalg.solve(np.eye(order**2) - np.kron(companion, companion), noise.ravel())
    state = whole.reshape(order, order)
    return [*state[0], (companion @ state)[0, -1]]


@pytest.mark.parametrize("shared", [True, False])
def test_ar_solves_the_normal_equations(rng, shared):
    x = rng.normal(size=(2, 50, 3)).cumsum(axis=1) * np.array([0.5, 1.0, 3.0])
    fitted = TemporalAR(3, ridge=0.1, shared=shared).fit(x)
    centred = x - x.mean(axis=(0, 1))
    lags = np.stack([(centred[:, k:] * centred[:, : 50 - k]).sum((0, 1)) / 100 for k in range(4)])
    if shared:
        lags = np.repeat(lags.mean(1, keepdims=True), 3, axis=1)
    lags[0] *= 1.1
    for i in range(3):
        for p in (1, 2, 3):
            a = np.linalg.solve(toeplitz(lags[:p, i]), lags[1 : p + 1, i])
            np.testing.assert_allclose(fitted.coefficients[p, :p, i], a, rtol=1e-9)
            np.testing.assert_allclose(fitted.coefficients[p, p:, i], 0, atol=0)
            variance = lags[0, i] - a @ lags[1 : p + 1, i]
            np.testing.assert_allclose(fitted.sigma[p, i], np.sqrt(variance), rtol=1e-9)
    np.testing.assert_allclose(fitted.filters[0], 1 / fitted.sigma[3])
    np.testing.assert_allclose(fitted.filters[1:], -fitted.coefficients[3] / fitted.sigma[3])


FLOWS = (
    TemporalAR(1),
    TemporalAR(4, shared=False),
    FrameDifference(),
    SpatioTemporal(Whitening("zca"), TemporalAR(2)),
    SpatioTemporal(Whitening("cholesky", 0.1), FrameDifference()),
)


@pytest.mark.parametrize("flow", FLOWS, ids=str)
@pytest.mark.parametrize("n_time", [1, 3, 9])
def test_temporal_flows_invert_and_know_their_volume(rng, flow, n_time):
    data = rng.normal(size=(5, 40, 3)).cumsum(axis=1) @ rng.normal(size=(3, 3))
    fitted = flow.fit(data)
    x = data[:, :n_time]
    np.testing.assert_allclose(fitted.inverse(fitted.forward(x)), x, atol=1e-10 * np.abs(x).max())
    there = flow.fit(torch.tensor(data))
    assert fitted.log_det(x).shape == (5,)
    np.testing.assert_allclose(jacobian_log_det(there, x[0]), fitted.log_det(x)[0], atol=1e-9)
    strict = flow.fit(array_api_strict.asarray(data))
    y = strict.forward(array_api_strict.asarray(x))
    np.testing.assert_allclose(np.asarray(y), fitted.forward(x), atol=1e-9)
    back = np.asarray(strict.inverse(y))
    np.testing.assert_allclose(back, x, atol=1e-9)


def test_temporal_flows_are_causal(rng):
    data = rng.normal(size=(5, 40, 3)).cumsum(axis=1)
    for flow in FLOWS:
        fitted = flow.fit(data)
        changed = data.copy()
        changed[:, 20:] += 1.0
        same = fitted.forward(changed)[:, :20] - fitted.forward(data)[:, :20]
        np.testing.assert_allclose(same, 0, atol=1e-12)


def test_spatiotemporal_is_temporal_after_spatial(rng):
    data = rng.normal(size=(5, 40, 3)).cumsum(axis=1)
    spatial = Whitening("zca").fit(data)
    temporal = TemporalAR(2).fit(spatial.forward(data))
    both = SpatioTemporal(Whitening("zca"), TemporalAR(2)).fit(data)
    np.testing.assert_allclose(both.forward(data), temporal.forward(spatial.forward(data)))


def test_frame_difference_of_a_random_walk_is_its_steps(rng):
    steps = rng.normal(size=(2, 9, 3))
    y = FrameDifference().forward(steps.cumsum(axis=1))
    np.testing.assert_allclose(y, steps, atol=1e-13)


def test_temporal_refusals(rng):
    x = rng.normal(size=(2, 9, 3))
    with pytest.raises(ValueError, match="order 0, expected an integer not below 1"):
        TemporalAR(0)
    with pytest.raises(ValueError, match="ridge -0"):
        TemporalAR(1, ridge=-0.1)
    with pytest.raises(ValueError, match="more than 9 frames"):
        TemporalAR(9).fit(x)
    with pytest.raises(ValueError, match="a feature never varies"):
        TemporalAR(1, shared=False).fit(x * np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="expected at least 2 axes"):
        TemporalAR(1).fit(x[0, 0])
    with pytest.raises(ValueError, match="NaN or infinite"):
        FrameDifference().forward(x * np.inf)
    fitted = TemporalAR(1).fit(x)
    for method in (fitted.forward, fitted.inverse, fitted.log_det):
        with pytest.raises(ValueError, match=r"expected shape \(\.\.\., time, 3\)"):
            method(x[..., :2])
