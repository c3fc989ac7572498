"""The declaration of a circuit: what it refuses, how it labels, what a run obeys."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse

import pcsim
from pcsim.circuit import (
    Circuit,
    Hebbian,
    Population,
    Projection,
    check_circuit,
    settle,
    simulate,
    simulate_plastic,
    simulate_replicas,
)
from pcsim.kinds import Error, Latent, Leaky, Prediction
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


# Responses


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


# Refusals


XI = Population("xi", Error(0.02, variance=0.7), 3, 0, "weighted_error")
MU = Population("mu", Latent(0.02), 2, 1, "latent")
SEEN = Projection("stimulus", "xi", port="observed")


def replaced(part, **changes):
    return dataclasses.replace(part, **changes)


UNLAWFUL = {
    "no populations": (dict(populations=()), "at least one"),
    "same name twice": (dict(populations=(XI, XI)), "'xi'"),
    "reserved name": (dict(populations=(replaced(XI, name="stimulus"),)), "stimulus"),
    "empty name": (dict(populations=(replaced(XI, name=""),)), "name"),
    "size": (dict(populations=(replaced(XI, size=0),)), "size"),
    "size is no integer": (dict(populations=(replaced(XI, size=3.0),)), "size"),
    "level": (dict(populations=(replaced(XI, level=-1),)), "level"),
    "role": (dict(populations=(replaced(XI, population="eror"),)), "Did you mean 'error'?"),
    "position": (dict(populations=(replaced(XI, x=np.zeros(2)),)), "x of shape (2,)"),
    "noise": (dict(populations=(replaced(XI, noise=-0.1),)), "noise"),
    "noise without time": (
        dict(populations=(replaced(XI, kind=Error(tau=None), noise=0.1),)),
        "noise",
    ),
    "noise with rk4": (
        dict(populations=(replaced(XI, noise=0.1),), projections=(SEEN,), integrator="rk4"),
        "noise",
    ),
    "source": (dict(projections=(replaced(SEEN, source="stimulos"),)), "Did you mean 'stimulus'?"),
    "target": (dict(projections=(replaced(SEEN, target="muu"),)), "Did you mean 'mu'?"),
    "port": (dict(projections=(replaced(SEEN, port="observe"),)), "Did you mean 'observed'?"),
    "port left out": (dict(projections=(replaced(SEEN, port=""),)), "'inhibition'"),
    "reads": (
        dict(projections=(Projection("mu", "xi", WEIGHTS, port="predicted", reads="state"),)),
        "reads",
    ),
    "transposed weights": (
        dict(projections=(Projection("mu", "xi", WEIGHTS.T, port="predicted"),)),
        "(2, 3)",
    ),
    "missing weights": (dict(projections=(Projection("mu", "xi", port="predicted"),)), "weights"),
    "weights of text": (
        dict(projections=(Projection("mu", "xi", [["a"]], port="predicted"),)),
        "weights",
    ),
    "weights not finite": (
        dict(projections=(Projection("mu", "xi", WEIGHTS * np.nan, port="predicted"),)),
        "weights",
    ),
    "sparse weights": (
        dict(
            projections=(
                Projection("mu", "xi", scipy.sparse.csr_array(WEIGHTS.T), port="predicted"),
            )
        ),
        "(2, 3)",
    ),
    "sign": (dict(projections=(replaced(SEEN, sign=np.inf),)), "sign"),
    "negative delay": (dict(projections=(replaced(SEEN, delay=-0.01),)), "delay"),
    "delay below half a step": (dict(projections=(replaced(SEEN, delay=0.0004),)), "delay"),
    "unknown gate": (
        dict(projections=(Projection("xi", "mu", WEIGHTS.T, port="ascending", gate="x"),)),
        "gate",
    ),
    "gate without slope": (
        dict(projections=(Projection("xi", "mu", WEIGHTS.T, port="ascending", gate="xi"),)),
        "no slope",
    ),
    "gate of another size": (
        dict(projections=(Projection("xi", "mu", WEIGHTS.T, port="ascending", gate="mu"),)),
        "gate of 2 units",
    ),
    "gate on the stimulus": (dict(projections=(replaced(SEEN, gate="mu"),)), "Relay"),
    "plastic without weights": (
        dict(projections=(replaced(SEEN, plastic=Hebbian(0.1)),)),
        "weights",
    ),
    "plastic error unknown": (
        dict(
            projections=(
                Projection(
                    "mu", "xi", WEIGHTS, port="predicted", plastic=Hebbian(0.1, error="chi")
                ),
            )
        ),
        "chi",
    ),
    "plastic error of another size": (
        dict(
            projections=(
                Projection("mu", "xi", WEIGHTS, port="predicted", plastic=Hebbian(0.1, error="mu")),
            )
        ),
        "2 error units",
    ),
    "replica axes": (
        dict(
            projections=(
                Projection("mu", "xi", np.stack([WEIGHTS] * 2), port="predicted"),
                Projection("xi", "mu", np.stack([WEIGHTS.T] * 3), port="ascending"),
            )
        ),
        "replicas",
    ),
    "dt": (dict(dt=0.0), "dt"),
    "dt of text": (dict(dt="1 ms"), "dt"),
    "integrator": (dict(integrator="rk5"), "Did you mean 'rk4'?"),
    "record_dt": (dict(record_dt=0.0015), "record_dt"),
    "record_dt negative": (dict(record_dt=-0.001), "record_dt"),
    "record_dt longer than the stimulus": (dict(record_dt=1.0), "record_dt"),
}


@pytest.mark.parametrize("name", UNLAWFUL)
def test_unlawful_circuits_are_refused(name, refused, rng):
    changes, words = UNLAWFUL[name]
    lawful = Parts(populations=(XI, MU), projections=(SEEN,))
    simulate(lawful, frames(rng))
    assert words in refused(simulate, replaced(lawful, **changes), frames(rng))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_circles_without_time_are_refused(length, refused, rng):
    names = [f"p{i}" for i in range(length)]
    populations = tuple(Population(n, Prediction(), 3, 0, "prediction") for n in names)
    circle = tuple(Projection(a, b) for a, b in zip(names, names[1:] + names[:1], strict=True))
    circuit = Parts(populations=populations, projections=circle)
    assert "delay" in refused(check_circuit, circuit)
    check_circuit(replaced(circuit, projections=(replaced(circle[0], delay=0.01), *circle[1:])))


def test_circle_through_a_gate_is_refused(refused):
    populations = (
        Population("a", Prediction(outer="tanh"), 3, 0, "prediction"),
        Population("b", Error(tau=None), 3, 0, "error"),
    )
    gated = (Projection("b", "a", gate="a", delay=0.0),)
    assert "'a'" in refused(check_circuit, Parts(populations=populations, projections=gated))


def test_what_does_not_fit_the_stimulus_is_refused(refused, rng):
    assert "5 features" in refused(simulate, TwoLevel(), frames(rng, n=5))
    assert "frames of" in refused(simulate, TwoLevel(dt=0.05), frames(rng))
    assert "stimulus" in refused(simulate, TwoLevel(), np.zeros((1, 1, 3)))
    assert "Did you mean 'mu'?" in refused(simulate, TwoLevel(), frames(rng), record=["mus"])
    assert "record" in refused(simulate, TwoLevel(), frames(rng), record=[])
    assert "record" in refused(simulate, TwoLevel(), frames(rng), record="mu")
    assert "one frame" in refused(settle, TwoLevel(), frames(rng))
    assert "noise" in refused(settle, TwoLevel(noise=0.1), frames(rng, n_frames=1))
    assert "plastic" in refused(simulate_plastic, TwoLevel(), frames(rng))
    assert "Circuit" in refused(simulate, "bogacz_2017", frames(rng))
    assert "no circuits" in refused(simulate_replicas, [], frames(rng))


def test_images_of_another_size_are_refused(refused, rng):
    @dataclass(frozen=True, kw_only=True)
    class Seeing(Circuit):
        @property
        def field_shape(self):
            return (2, 3)

        @property
        def populations(self):
            return (Population("units", Leaky(0.02), 6, 0, "output"),)

        @property
        def projections(self):
            return (Projection("stimulus", "units", port="drive"),)

    images = stimulus_array(rng.random((1, 1, 2, 3)), frame_duration=0.01, px_per_deg=16.0)
    assert Seeing().run(images).sizes["unit"] == 6
    turned = images.transpose("trial", "time", "x", "y").rename(x="y", y="x")
    assert "3 x 2" in refused(simulate, Seeing(), turned)


def test_a_circuit_must_declare_its_parts():
    with pytest.raises(TypeError, match=re.escape("abstract")):
        Circuit()
