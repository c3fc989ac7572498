"""The declaration of a circuit: what it refuses, how it labels, what a run obeys."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse

import pcsim
from pcsim.circuit import (
    Circuit,
    Population,
    Projection,
    settle,
)
from pcsim.kinds import Error, Latent, Prediction
from pcsim.priors import GaussianPrior
from pcsim.responses import select, stimulus_array

WEIGHTS = np.array([[0.9, -0.4], [0.3, 1.2], [-0.7, 0.5]])


@dataclass(frozen=True, kw_only=True)
class TwoLevel(Circuit):
    """Errors, predictions through tanh, and latents: nonlinear, gated, with every kind of wire."""

    weights: np.ndarray = dataclasses.field(default_factory=lambda: WEIGHTS)
    variance: float = 0.7
    precision: float = 0.4
    tau: float = 0.02
    delay: float = 0.0
    feedback_gain: float = 1.0
    noise: float = 0.0

    @property
    def populations(self):
        n, m = self.weights.shape[-2:]
        prior = GaussianPrior(mean=0.3, precision=self.precision)
        error = Error(self.tau, variance=self.variance)
        return (
            Population("xi", error, n, 0, "weighted_error", area="V1", x=np.arange(float(n))),
            Population("prediction", Prediction(outer="tanh"), n, 0, "prediction", layer="L5/6"),
            Population("mu", Latent(self.tau, prior=prior), m, 1, "latent", noise=self.noise),
        )

    @property
    def projections(self):
        up = np.swapaxes(self.weights, -1, -2)
        return (
            Projection("stimulus", "xi", port="observed"),
            Projection("mu", "prediction", self.weights, delay=self.delay),
            Projection("prediction", "xi", port="predicted", sign=self.feedback_gain),
            Projection("xi", "mu", up, port="ascending", gate="prediction"),
        )


@dataclass(frozen=True, kw_only=True)
class Parts(Circuit):
    """Whatever parts a test hands over."""

    populations: tuple[Population, ...] = ()
    projections: tuple[Projection, ...] = ()


def frames(rng, n_trials=4, n_frames=3, n=3, frame_duration=0.02, **coords):
    return stimulus_array(
        rng.normal(size=(n_trials, n_frames, n)), frame_duration=frame_duration, **coords
    )


def test_responses_carry_the_labels_of_the_declaration_and_of_the_trials(rng):
    stimulus = frames(rng, condition=list("aabb"), contrast=[0.1, 0.2, 0.3, 0.4])
    responses = TwoLevel(record_dt=0.01).run(stimulus)
    assert responses.rate.dims == ("trial", "time", "unit")
    assert responses.name.values.tolist() == ["xi"] * 3 + ["prediction"] * 3 + ["mu"] * 2
    assert responses.level.values.tolist() == [0] * 6 + [1] * 2
    assert responses.area.values.tolist() == ["V1"] * 3 + [""] * 5
    assert responses.layer.values.tolist() == [""] * 3 + ["L5/6"] * 3 + [""] * 2
    np.testing.assert_array_equal(responses.x.values, [0, 1, 2, *[np.nan] * 5])
    assert "y" not in responses.coords
    np.testing.assert_allclose(responses.time.values, [0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    assert responses.condition.values.tolist() == list("aabb")
    assert responses.contrast.values.tolist() == [0.1, 0.2, 0.3, 0.4]


def test_recording_some_populations_and_times_changes_none_of_them(rng):
    stimulus = frames(rng)
    whole = TwoLevel().run(stimulus)
    part = TwoLevel(record_dt=0.01).run(stimulus, record=["prediction", "xi"])
    assert sorted(set(part.name.values.tolist())) == ["prediction", "xi"]
    expected = whole.isel(unit=slice(0, 6)).sel(time=part.time, method="nearest").rate.values
    np.testing.assert_array_equal(part.rate.values, expected)


def test_trials_are_independent_and_the_stimulus_is_untouched(rng):
    stimulus = frames(rng)
    before = stimulus.copy(deep=True)
    whole = TwoLevel().run(stimulus)
    for trial in range(4):
        alone = TwoLevel().run(stimulus.isel(trial=[trial]))
        np.testing.assert_allclose(alone.rate.values[0], whole.rate.values[trial], atol=1e-14)
    assert stimulus.identical(before)


def test_order_of_populations_and_units_is_irrelevant(rng):
    stimulus = frames(rng)
    circuit = TwoLevel()
    turned = Parts(populations=circuit.populations[::-1], projections=circuit.projections[::-1])
    one, other = circuit.run(stimulus), turned.run(stimulus)
    for name in ("xi", "mu", "prediction"):
        a = one.isel(unit=one.name.values == name).rate.values
        np.testing.assert_allclose(other.isel(unit=other.name.values == name).rate.values, a)
    swapped = dataclasses.replace(circuit, weights=WEIGHTS[:, ::-1]).run(stimulus)
    np.testing.assert_allclose(
        select(swapped, population="latent").rate.values[..., ::-1],
        select(one, population="latent").rate.values,
        atol=1e-14,
    )


def test_frames_are_held_and_the_rate_at_the_end_of_a_frame_still_sees_it():
    relay = Parts(
        populations=(Population("relay", Prediction(), 1, 0, "output"),),
        projections=(Projection("stimulus", "relay"),),
        dt=0.01,
    )
    stimulus = stimulus_array([[[2.0], [5.0], [3.0]]], frame_duration=0.02)
    rate = relay.run(stimulus).rate.values[0, :, 0]
    np.testing.assert_array_equal(rate, [2, 2, 5, 5, 3, 3])
    per_frame = dataclasses.replace(relay, record_dt=0.02).run(stimulus)
    np.testing.assert_array_equal(per_frame.rate.values[0, :, 0], [2, 5, 3])


@pytest.mark.parametrize("steps", [1, 3, 7, 9])
def test_every_frame_lasts_its_steps_whatever_the_rounding_of_the_onsets(steps):
    relay = Parts(
        populations=(Population("relay", Prediction(), 1, 0, "output"),),
        projections=(Projection("stimulus", "relay"),),
    )
    values = np.arange(300.0)
    stimulus = stimulus_array(values[None, :, None], frame_duration=steps * 1e-3)
    rate = relay.run(stimulus).rate.values[0, :, 0]
    np.testing.assert_array_equal(rate, np.repeat(values, steps))


def test_before_the_first_frame_nothing_is_shown():
    relay = Parts(
        populations=(Population("relay", Prediction(), 1, 0, "output"),),
        projections=(Projection("stimulus", "relay"),),
        dt=0.01,
    )
    stimulus = stimulus_array([[[2.0], [5.0]]], frame_duration=0.02)
    late = stimulus.assign_coords(time=stimulus.time + 0.03)
    np.testing.assert_array_equal(relay.run(late).rate.values[0, :, 0], [0, 0, 0, 2, 2, 5, 5])


@pytest.mark.parametrize("source", ["stimulus", "first"])
def test_delay_shifts_what_arrives(rng, source):
    first = Population("first", Prediction(), 2, 0, "output")
    second = Population("second", Prediction(), 2, 0, "output")
    circuit = Parts(
        populations=(first, second),
        projections=(
            Projection("stimulus", "first"),
            Projection(source, "second", delay=0.007),
            Projection(source, "second", delay=0.003, sign=-0.4),
        ),
    )
    stimulus = frames(rng, n=2, n_frames=9, frame_duration=0.004)
    rate = circuit.run(stimulus).rate.values
    shown = np.repeat(stimulus.values, 4, axis=1)
    padded = np.concatenate([np.zeros((4, 7, 2)), shown], axis=1)
    expected = padded[:, :-7] - 0.4 * padded[:, 4:-3]
    if source == "first":
        # What is recorded at the end of a step sees the frame of that step. What travelled does
        # not: it left at the beginning of a step, with the frame that came on then.
        expected = np.concatenate([expected[:, 1:], padded[:, -7:-6] - 0.4 * padded[:, -3:-2]], 1)
    np.testing.assert_allclose(rate[..., 2:], expected, atol=1e-15)


def test_lesion_is_a_changed_parameter(rng):
    stimulus = frames(rng, n_frames=1, frame_duration=1.0)
    circuit = TwoLevel()
    cut = pcsim.lesion(circuit, feedback_gain=0.0)
    rate = select(settle(cut, stimulus), population="weighted_error").rate.values[:, 0]
    np.testing.assert_allclose(rate, stimulus.values[:, 0] / 0.7, rtol=1e-8)
    assert circuit.feedback_gain == 1.0


def test_sparse_weights_are_dense_weights(rng):
    circuit = TwoLevel()
    sparse = Parts(
        populations=circuit.populations,
        projections=tuple(
            p
            if p.weights is None
            else dataclasses.replace(p, weights=scipy.sparse.csr_array(p.weights))
            for p in circuit.projections
        ),
    )
    stimulus = frames(rng)
    dense = circuit.run(stimulus).rate.values
    np.testing.assert_allclose(sparse.run(stimulus).rate.values, dense, atol=1e-14)


def test_a_circuit_is_a_model(rng):
    assert isinstance(TwoLevel(), pcsim.Model)
    assert not isinstance(TwoLevel(), pcsim.Learner)
    assert TwoLevel().field_shape is None
