"""Activity that grows without bound: found, explained, and told from what is only large."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import numpy as np
import pytest

from pcsim.circuit import Circuit, Population, Projection, simulate, simulate_replicas
from pcsim.kinds import Error, Latent, Leaky
from pcsim.priors import GaussianPrior
from pcsim.responses import stimulus_array


@dataclass(frozen=True, kw_only=True)
class Linear(Circuit):
    """One error and one latent population; every mode is known in closed form."""

    weight: float = 3.0
    variance: float = 0.7
    precision: float = 0.4
    tau: float = 0.02
    sign: float = 1.0
    n: int = 2

    @property
    def populations(self):
        latent = Latent(self.tau, prior=GaussianPrior(precision=self.precision))
        return (
            Population("xi", Error(self.tau, variance=self.variance), self.n, 0, "weighted_error"),
            Population("mu", latent, self.n, 1, "latent"),
        )

    @property
    def projections(self):
        return (
            Projection("stimulus", "xi", port="observed"),
            Projection("mu", "xi", port="predicted", sign=self.sign * self.weight),
            Projection("xi", "mu", port="ascending", sign=self.weight),
        )


def modes(circuit):
    """Return the eigenvalues of the linear circuit: both of its 2 x 2 Jacobian."""
    w = circuit.weight
    matrix = np.array([[-circuit.variance, -circuit.sign * w], [w, -circuit.precision]])
    return np.linalg.eigvals(matrix / circuit.tau)


def largest_step(circuit):
    """Return the largest stable dt in closed form."""
    eigenvalues = modes(circuit)
    if circuit.integrator == "euler":
        return float((-2 * eigenvalues.real / abs(eigenvalues) ** 2).min())
    steps = np.linspace(1e-5, 0.1, 100_000)
    z = steps[:, None] * eigenvalues
    growth = abs(1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24).max(axis=1)
    return float(steps[growth <= 1].max())


def named_step(caught):
    return float(re.search(r"dt=([\d.e-]+)\)", str(caught.value))[1])


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("n", [1, 500])
def test_divergence_names_the_largest_stable_step(integrator, n):
    circuit = Linear(integrator=integrator, n=n)
    allowed = largest_step(circuit)
    stimulus = stimulus_array(np.full((1, 1, n), 0.7), frame_duration=400 * allowed)
    coarse = dataclasses.replace(circuit, dt=1.3 * allowed)
    with pytest.raises(RuntimeError, match="diverged within") as caught:
        simulate(coarse, stimulus)
    # The step is printed with three digits, a little below the bound that bisection found.
    assert 0.98 * allowed < named_step(caught) <= allowed
    finer = dataclasses.replace(circuit, dt=named_step(caught))
    assert abs(simulate(finer, stimulus).rate.values).max() < 5


def test_exponential_euler_takes_steps_that_euler_cannot():
    leaky = Linear(weight=0.3, variance=40.0, precision=30.0, dt=2e-3)
    stimulus = stimulus_array(np.full((1, 1, 2), 0.7), frame_duration=1.0)
    assert abs(simulate(leaky, stimulus).rate.values).max() < 1
    with pytest.raises(RuntimeError, match="diverged") as caught:
        simulate(dataclasses.replace(leaky, integrator="euler"), stimulus)
    bound = largest_step(dataclasses.replace(leaky, integrator="euler"))
    assert 0.98 * bound < named_step(caught) <= bound


def test_divergence_of_a_nonlinear_circuit_is_found_where_it_happens():
    # u' = drive - u - u^2 leaks by 1 + 2 u where it rests, and runs away once it is below -1.
    stimulus = stimulus_array([[[0.3]], [[42.0]], [[2.0]]], frame_duration=1.0)
    bound = 2 * 0.02 / (1 + 2 * 6)

    @dataclass(frozen=True, kw_only=True)
    class Squared(Circuit):
        @property
        def populations(self):
            return (Population("u", Leaky(0.02, "square"), 1, 0, "output"),)

        @property
        def projections(self):
            return (
                Projection("stimulus", "u", port="drive"),
                Projection("u", "u", port="inhibition"),
            )

    with pytest.raises(RuntimeError, match="dt=") as caught:
        simulate(Squared(dt=5 * bound, integrator="euler"), stimulus)
    finer = Squared(dt=named_step(caught), integrator="euler")
    assert bound / 8 < finer.dt < 2 * bound
    assert abs(simulate(finer, stimulus).rate.values).max() < 100
    with pytest.raises(RuntimeError, match="It grows at any dt"):
        simulate(finer, -stimulus)


def test_a_circuit_that_grows_at_any_step_is_told_apart():
    stimulus = stimulus_array(np.full((1, 1, 2), 0.7), frame_duration=1.0)
    with pytest.raises(RuntimeError, match="It grows at any dt"):
        simulate(Linear(sign=-1.0), stimulus)


def test_large_but_stable_activity_is_no_divergence():
    stimulus = stimulus_array(np.full((1, 1, 2), 0.7), frame_duration=0.5)
    tight = Linear(weight=1e-6, variance=1e-5, precision=1e-5, tau=1e-6, dt=1e-4)
    assert abs(simulate(tight, stimulus).rate.values).max() > 1e4


def test_a_diverging_replica_stops_the_batch():
    stimulus = stimulus_array(np.full((1, 1, 2), 0.7), frame_duration=1.0)
    circuits = [Linear(integrator="euler", weight=w) for w in (0.7, 40.0)]
    bound = largest_step(circuits[1])
    with pytest.raises(RuntimeError) as caught:
        simulate_replicas(circuits, stimulus)
    assert 0.98 * bound < named_step(caught) <= bound
