"""The spiking twin: the neuron's rate, and populations against the rates of the rate circuit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erfcx

from pcsim import catalog
from pcsim.brian_lif import SIGMA, TAU_M, lif_rate
from pcsim.brian_spiking import expected_rates, run_spiking
from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import Error, Latent, Leaky
from pcsim.priors import GaussianPrior
from pcsim.protocols import blank
from pcsim.stimulus import stimulus_array


@dataclass(frozen=True, kw_only=True)
class SmallColumn(Circuit):
    """Two areas with the layers, loops, delays and time constants of the laminar column."""

    relay: Any = None
    above: Any = None
    nonlinearity: str = "linear"
    noise: float = 0.0

    @property
    def populations(self):
        e, fast = Error(tau=0.002, variance=1.0), Leaky(tau=0.016)
        out = [Population("error_LGN", Error(tau=0.002, variance=1.0), 4, 0, "error", "LGN")]
        for level, (area, n) in enumerate((("V1", 3), ("V2", 2)), start=1):
            four = Leaky(tau=0.002, nonlinearity=self.nonlinearity)
            out += [
                Population(f"input_{area}", four, n, level, "input", area, "L4"),
                Population(f"error_{area}", e, n, level, "error", area, "L2/3", noise=self.noise),
                Population(f"latent_{area}", Latent(tau=0.028), n, level, "latent", area, "L5/6"),
                Population(f"inner_{area}", fast, n, level, "interneuron", area, "L2/3"),
            ]
        return (*out, Population("prediction_V1", fast, 3, 1, "prediction", "V1", "L2/3"))

    @property
    def projections(self):
        near, far = {"delay": 0.001}, {"delay": 0.008}
        lateral = 2.0 * np.array([[1.0, 0.3, -0.2], [0.3, 1.0, 0.1], [-0.2, 0.1, 1.0]])
        out = [
            Projection("stimulus", "error_LGN", port="observed"),
            Projection("prediction_V1", "error_V1", port="predicted", **near),
        ]
        steps = (
            ("LGN", "V1", self.relay, lateral, ("error_LGN", "predicted")),
            ("V1", "V2", self.above, lateral[:2, :2], ("prediction_V1", "drive")),
        )
        for below, area, weights, covariance, (down, port) in steps:
            own, error, latent = f"input_{area}", f"error_{area}", f"latent_{area}"
            loop = covariance - np.eye(len(covariance))
            out += [
                Projection(f"error_{below}", own, weights.T, "drive", **far),
                Projection(own, latent, port="ascending", **near),
                Projection(latent, down, weights, port, **far),
                Projection(latent, error, port="observed", **near),
                Projection(error, latent, port="own_error", **near),
                Projection(error, f"inner_{area}", loop, "drive", **near),
                Projection(f"inner_{area}", error, port="inhibition", **near),
            ]
        return tuple(out)


def small(**settings):
    rng = np.random.default_rng(5)
    relay, above = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))
    scaled = [w / np.linalg.norm(w, 2) for w in (relay, above)]
    return SmallColumn(relay=scaled[0], above=scaled[1], record_dt=0.05, **settings)


def held(duration, n=1):
    values = np.random.default_rng(6).standard_normal((n, 1, 4))
    return stimulus_array(values, frame_duration=duration)


@cache
def compared():
    """Return rates of the spiking twin, rates expected, and the spiking responses; one trial."""
    spikes = run_spiking(small(), held(1.2), seed=1, n_neurons=400)
    rates = replace(small(), dt=1e-4).run(held(1.2))
    return spikes.rate.values[0], expected_rates(rates).values[0], spikes


def test_populations_agree_with_the_rate_circuit_over_a_second():
    """Measured: root mean square 0.35 Hz, at most 0.87 (27 units, 400 neurons, 1 s, seed 1)."""
    got, expected, _ = compared()
    got, expected = (one[4:].mean(axis=0) for one in (got, expected))
    assert np.ptp(expected) > 25.0
    difference = np.abs(got - expected)
    assert (difference <= np.maximum(1.0, 0.02 * expected)).all()
    assert np.sqrt((difference**2).mean()) < 0.6


def test_populations_follow_the_transient():
    got, expected, _ = compared()
    early, later = ((got[k] - expected[k]) for k in (slice(0, 4), slice(4, 24)))
    change = np.abs(expected[0] - expected[-1]).max()
    assert change > 5.0
    # Bins of 50 ms and 400 neurons: noise of about 1.5 Hz, and the lag of the membranes.
    assert np.sqrt((early**2).mean()) < 4.0
    assert np.sqrt((later**2).mean()) < 3.0


def test_spike_counts_and_labels():
    _, _, spikes = compared()
    np.testing.assert_allclose(spikes.rate, spikes.spike_count / (400 * 0.05), rtol=1e-12)
    assert spikes.rate.attrs["units"] == "Hz"
    assert spikes.layer.values[spikes.name.values == "error_V2"].tolist() == ["L2/3"] * 2


@pytest.mark.parametrize("current", [0.7, 1.1, 2.5])
def test_neuron_fires_at_the_rate_of_siegert(current):
    """In small steps; a walk sees its threshold 0.5826 steps of noise further (Broadie 1997)."""
    dt = 1e-5
    threshold = 1.0 + 0.5826 * SIGMA * np.sqrt(dt / TAU_M)
    bounds = -current / SIGMA, (threshold - current) / SIGMA
    area = quad(lambda x: erfcx(-x), *bounds)[0]
    siegert = 1.0 / (TAU_M * np.sqrt(np.pi) * area)
    assert lif_rate(current, dt=dt) == pytest.approx(siegert, rel=1e-3)


def test_neuron_fires_as_walks_do(rng):
    """A walk in numpy: 800 neurons for 2 s, of which every spike counts after the first 0.2 s."""
    currents, dt = np.repeat([0.6, 1.1, 1.8], 800), 2e-4
    v, count = rng.uniform(size=currents.size), np.zeros(currents.size)
    for step in range(11_000):
        kick = SIGMA * np.sqrt(dt / TAU_M) * rng.standard_normal(v.size)
        v = v + dt / TAU_M * (currents - v) + kick
        fired = v > 1.0
        v = np.where(fired, 0.0, v)
        count += fired & (step >= 1000)
    count = count.reshape(3, 800) / 2.0
    error = count.std(axis=1) / np.sqrt(800)
    expected = lif_rate([0.6, 1.1, 1.8], dt=dt)
    assert (np.abs(count.mean(axis=1) - expected) < 4 * error).all()
    # So sharp that Siegert's formula, 3 % off at this step, would fail.
    assert (error < 0.005 * expected).all()


def test_trials_stay_apart_and_silence_is_baseline():
    values = np.concatenate([held(0.3).values, np.zeros((1, 1, 4))])
    shown = stimulus_array(values, frame_duration=0.3)
    alone = small()
    spikes = run_spiking(alone, shown, seed=2, n_neurons=100, record=["error_LGN", "latent_V2"])
    assert set(spikes.name.values) == {"error_LGN", "latent_V2"}
    rest = spikes.rate.values[1].mean()
    # 6 units of 100 neurons over 0.3 s at 60 Hz, noise shared through loops: about 1 Hz.
    assert rest == pytest.approx(60.0, abs=3.0)
    rates = expected_rates(replace(alone, dt=1e-4).run(shown))
    driven = rates.values[0, :, :4]
    assert np.abs(spikes.rate.values[0, :, :4].mean(0) - driven.mean(0)).max() < 5.0
    again = run_spiking(alone, shown, seed=2, n_neurons=100, record=["error_LGN", "latent_V2"])
    np.testing.assert_array_equal(spikes.spike_count, again.spike_count)


def test_what_is_not_linear_is_refused():
    shown = held(0.1)
    with pytest.raises(ValueError, match=r"input_V1.*not linear"):
        run_spiking(small(nonlinearity="relu"), shown)
    with pytest.raises(ValueError, match="no noise of its own"):
        run_spiking(small(noise=0.3), shown)
    with pytest.raises(ValueError, match=r"input rates down to .* Raise baseline"):
        run_spiking(small(), shown, gain=80.0)
    direct = catalog.load("circuits", "rao_ballard_1999")
    with pytest.raises(ValueError, match="one state"):
        run_spiking(direct, blank(direct, duration=0.1))


def test_priors_count_as_leak_and_bias():
    @dataclass(frozen=True, kw_only=True)
    class One(Circuit):
        @property
        def populations(self):
            prior = GaussianPrior(mean=0.5, precision=4.0)
            return (Population("mu", Latent(tau=0.02, prior=prior), 1, 1, "latent"),)

        @property
        def projections(self):
            return (Projection("stimulus", "mu", np.array([[0.7]]), "ascending"),)

    shown = stimulus_array(np.full((1, 1, 1), 2.0), frame_duration=0.5)
    spikes = run_spiking(One(record_dt=0.1), shown, seed=3, n_neurons=400)
    # At rest u = 0.5 + 0.7 * 2 / 4 = 0.85, and 60 + 20 * 0.85 = 77 spikes per second.
    assert spikes.rate.values[0, 1:].mean() == pytest.approx(77.0, abs=1.0)
