"""What a circuit refuses: names, shapes, numbers and stimuli that do not make one."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse

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
from pcsim.responses import stimulus_array

WEIGHTS = np.array([[0.9, -0.4], [0.3, 1.2], [-0.7, 0.5]])


@dataclass(frozen=True, kw_only=True)
class Parts(Circuit):
    """Whatever parts a test hands over."""

    populations: tuple[Population, ...] = ()
    projections: tuple[Projection, ...] = ()


def frames(rng, n_trials=4, n_frames=3, n=3, frame_duration=0.02, **coords):
    return stimulus_array(
        rng.normal(size=(n_trials, n_frames, n)), frame_duration=frame_duration, **coords
    )


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
    lawful = Parts(populations=(XI, MU), projections=(SEEN,))
    noisy = replaced(lawful, populations=(replaced(XI, noise=0.1), MU))
    assert "5 features" in refused(simulate, lawful, frames(rng, n=5))
    assert "frames of" in refused(simulate, replaced(lawful, dt=0.05), frames(rng))
    assert "stimulus" in refused(simulate, lawful, np.zeros((1, 1, 3)))
    assert "Did you mean 'mu'?" in refused(simulate, lawful, frames(rng), record=["mus"])
    assert "record" in refused(simulate, lawful, frames(rng), record=[])
    assert "record" in refused(simulate, lawful, frames(rng), record="mu")
    assert "one frame" in refused(settle, lawful, frames(rng))
    assert "noise" in refused(settle, noisy, frames(rng).isel(time=[0]))
    assert "plastic" in refused(simulate_plastic, lawful, frames(rng))
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
