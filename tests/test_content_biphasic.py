"""The LGN with delayed feedback, and what H05 reads from it and from kernels that are known."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from pcsim import catalog, roster
from pcsim.brian import run_brian
from pcsim.circuit import Circuit, Population, Projection, settle
from pcsim.hierarchy import GaussianPrior, Hierarchy, Level
from pcsim.inference import map_exact
from pcsim.kinds import Leaky, TemporalRelay
from pcsim.stimulus import stimulus_array

JB = catalog.load("circuits", "jehee_ballard_2009")
H05 = catalog.load("analysis", "biphasic_kernels")


def images(rng, n=2, duration=0.1, contrast=0.05):
    values = 0.5 + contrast * rng.standard_normal((n, 1, *JB.field_shape))
    return stimulus_array(np.clip(values, 0, 1), frame_duration=duration, px_per_deg=16.0)


def named(rates, name):
    return rates["rate"].values[:, -1, rates["name"].values == name]


def test_linear_circuit_rests_at_the_map_estimate_in_both_engines(rng):
    model = replace(JB, sparse=False, precision=4.0, alpha=0.7)
    stimulus = images(rng)
    x = model.prepare(stimulus)[:, 0]
    level = Level(model.weights, precision=4.0)
    exact = map_exact(Hierarchy((level,), (GaussianPrior(precision=0.7),)), x)
    rest = settle(model, stimulus, tol=1e-10)
    np.testing.assert_allclose(named(rest, "latent"), exact.states[1], atol=1e-7)
    error = 4.0 * (x - exact.states[1] @ model.weights.T)
    np.testing.assert_allclose(named(rest, "residual"), error, atol=1e-6)
    np.testing.assert_allclose(named(rest, "lgn_on"), np.maximum(error, 0), atol=1e-6)
    np.testing.assert_allclose(named(rest, "lgn_off"), np.maximum(-error, 0), atol=1e-6)
    held = stimulus.isel(trial=[0]).assign_coords(frame_duration=0.8)
    brian = run_brian(replace(model, record_dt=0.8), held, dt=0.001, record=["latent"])
    np.testing.assert_allclose(brian["rate"].values[:, -1], exact.states[1][:1], atol=1e-3)


def test_sparse_circuit_rests_where_the_gradient_vanishes(rng):
    model = replace(JB, precision=0.7, alpha=4.0)
    rest = settle(model, images(rng), tol=1e-10)
    r, error = named(rest, "latent"), named(rest, "residual")
    np.testing.assert_allclose(error @ model.weights, 4.0 * r / (1 + r**2), atol=1e-6)
    x = model.prepare(images(np.random.default_rng(0)))[:, 0]
    estimate = model.estimate(x, n_steps=4000)
    pull = 0.7 * (x - estimate @ model.weights.T) @ model.weights
    np.testing.assert_allclose(pull, 4.0 * estimate / (1 + estimate**2), atol=1e-6)


def test_learning_moves_along_error_times_rate(rng):
    patches = rng.standard_normal((12, 256))
    model = replace(JB, precision=0.7)
    r = model.estimate(patches)
    step = 0.7 * (patches - r @ model.weights.T).T @ r / 12 - 0.02 * model.weights
    power = 0.7 * np.linalg.eigvalsh(r.T @ r)[-1] / 12
    moved = model._learn(patches, 0.3).weights - model.weights
    np.testing.assert_allclose(moved, 0.3 * step / max(1.0, power), atol=1e-10)


def test_without_feedback_the_lgn_repeats_its_input(rng):
    stimulus = images(rng)
    rest = named(replace(JB, feedback_gain=0.0, record_dt=0.1).run(stimulus), "residual")
    np.testing.assert_allclose(rest, JB.prepare(stimulus)[:, 0], atol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Known(Circuit):
    """Units that low-pass one pixel each and subtract a share of their trace, or are predicted."""

    feedback_gain: float = 0.0
    share: float = 0.9
    sign: float = 1.0
    dt: float = 0.002

    @property
    def field_shape(self):
        return 16, 16

    @property
    def px_per_deg(self):
        return 16.0

    @property
    def populations(self):
        kind = TemporalRelay(tau=0.01, tau_trace=0.04, coefficient=self.share)
        above = Leaky(tau=0.02)
        return (
            Population("cell", kind, 256, 0, "error", "LGN"),
            Population("above", above, 256, 1, "latent"),
        )

    @property
    def projections(self):
        return (
            Projection("stimulus", "cell", sign=self.sign),
            Projection("above", "cell", sign=-self.feedback_gain),
            Projection("cell", "above", port="drive"),
        )

    def prepare(self, stimulus):
        return Circuit.prepare(self, stimulus) - 0.5


@cache
def evidence(model):
    return H05.observe(model, seed=0, scale="quick")


def expected_course(share):
    """Response at the sampled times to one frame of light, from the closed form of the filter."""
    frame, samples = 0.016, np.array([0.008, 0.016])
    tau, trace = 0.01, 0.04
    beta = share / (1 - tau / trace)

    def step(t):
        t = np.maximum(t, 0.0)
        # u' = (1 - share (1 - exp(-t / trace)) - u) / tau
        return (1 - share) * (1 - np.exp(-t / tau)) + beta * (np.exp(-t / trace) - np.exp(-t / tau))

    lags = np.arange(12)[:, None] * frame
    return (step(lags + samples) - step(lags + samples - frame)).mean(axis=1)


@pytest.mark.parametrize(("share", "sign"), [(0.9, -1.0), (0.4, 1.0)])
def test_kernel_and_index_of_a_known_filter(share, sign):
    found, course = evidence(Known(share=share, sign=sign)), expected_course(share)
    peak = course.argmax()
    assert found["included"].all()
    np.testing.assert_allclose(
        found["course"].values, np.tile(course / course[peak], (256, 1)), atol=0.05
    )
    index = -course[peak:].min() / course[peak]
    np.testing.assert_allclose(found["biphasic"], index, atol=0.05)
    np.testing.assert_allclose(found["separability"], 1.0, atol=0.01)
    np.testing.assert_allclose(found["peak_time"], (peak + 0.5) * 0.016, atol=1e-12)


def test_influence_of_known_feedback():
    """Linear feedback of gain g leaves 1 / (1 + g (1 - k)) of the response, on either side."""
    none, some = evidence(Known(share=0.4)), evidence(Known(share=0.4, feedback_gain=2.0))
    assert float(np.abs(none["same"]).max()) == 0.0
    # Over its own zone and over the opposite one: a signed unit deviates upwards and downwards.
    np.testing.assert_allclose(some["same"], -some["opposite"], atol=1e-6)
    left = 1.0 / (1.0 + 2.0 * (1.0 - 0.4))
    np.testing.assert_allclose(some["same"].mean(), left - 1.0, atol=0.05)
    facilitated = evidence(Known(share=0.4, feedback_gain=-0.3))
    assert float(facilitated["same"].min()) > 0.1


def test_severed_circuits_lose_all_that_lies_above():
    control = {one.name: one for one in H05.controls}["cut"].transform
    cut = control(JB, 0)
    assert [population.name for population in cut.populations] == ["residual", "lgn_on", "lgn_off"]
    assert pickle.loads(pickle.dumps(cut)).run(images(np.random.default_rng(0))) is not None
    ln = catalog.load("circuits", "linear_nonlinear")
    np.testing.assert_array_equal(control(ln, 0).projections[0].weights, ln.gain * ln.filters)


def test_columns_of_the_roster():
    assert roster.variant("JB").circuit == "jehee_ballard_2009"
    assert roster.variant("JB-cut").lesion == {"feedback_gain": 0.0}
    assert H05.inapplicable("LCA")
    assert not H05.inapplicable("JB")


def test_estimates_pose_as_errors_at_the_circuits_own_recording_step(rng):
    control = next(one for one in H05.controls if one.name == "estimates")
    posing = control.transform(JB, 0)
    assert H05.missing(posing) == ""
    stimulus = images(rng)
    posed = posing.run(stimulus)
    own = JB.run(stimulus, record=["latent"])
    np.testing.assert_array_equal(posed["time"], own["time"])
    assert set(posed["population"].values) == {"error"}
    assert set(posed["level"].values) == {0}
    assert posed.sizes["unit"] <= own.sizes["unit"]
    assert np.abs(posed["rate"].values).max() > 0
