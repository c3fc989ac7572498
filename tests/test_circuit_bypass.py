"""Leaving out error units that nobody records changes no rate beyond rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from pcsim.circuit import Circuit, Population, Projection, simulate, simulate_replicas
from pcsim.engine_bypass import _product, bypass
from pcsim.kinds import Error, Latent
from pcsim.nonlinearity import tanh
from pcsim.priors import GaussianPrior
from pcsim.stimulus import stimulus_array

N_X, N_Z, N_TOP = 12, 3, 2


@dataclass(frozen=True, kw_only=True)
class TwoLevels(Circuit):
    """A wide error below narrow latents, and a one-to-one error above them."""

    weights: Any
    top: Any
    precision: Any
    dt: float = 0.002

    @property
    def populations(self) -> tuple[Population, ...]:
        latent = {"tau": 0.02, "inner": tanh, "prior": GaussianPrior(precision=0.7)}
        return (
            Population("below", Error(tau=None, precision=self.precision), N_X, 0, "error"),
            Population("z", Latent(**latent), N_Z, 1, "latent"),
            Population("above", Error(tau=None, precision=0.4), N_Z, 1, "error"),
            Population("top", Latent(**latent), N_TOP, 2, "latent"),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        return (
            Projection("stimulus", "below", port="observed"),
            Projection("z", "below", self.weights, port="predicted"),
            Projection("below", "z", self.weights.T, port="ascending", sign=0.9),
            Projection("z", "above", port="observed", reads="rate"),
            Projection("top", "above", self.top, port="predicted"),
            Projection("above", "z", port="own_error"),
            Projection("above", "top", self.top.T, port="ascending"),
        )


def precisions(rng):
    factor = rng.standard_normal((N_X, N_X))
    full = factor @ factor.T / N_X + 0.5 * np.eye(N_X)
    return {"none": None, "scalar": 2.3, "diagonal": rng.uniform(0.2, 4.0, N_X), "full": full}


@pytest.mark.parametrize("precision", ["none", "scalar", "diagonal", "full"])
def test_rates_do_not_depend_on_what_is_recorded(rng, precision):
    circuit = TwoLevels(
        weights=0.4 * rng.standard_normal((N_X, N_Z)),
        top=0.5 * rng.standard_normal((N_Z, N_TOP)),
        precision=precisions(rng)[precision],
    )
    stimulus = stimulus_array(rng.standard_normal((4, 3, N_X)), frame_duration=0.05)
    everything = simulate(circuit, stimulus)["rate"]
    kept, _ = bypass(circuit.populations, circuit.projections, keep=["z", "top"])
    assert [one.name for one in kept] == ["z", "above", "top"]
    some = simulate(circuit, stimulus, record=["z", "top"])["rate"]
    wanted = everything.isel(unit=np.r_[N_X : N_X + N_Z, N_X + 2 * N_Z : N_X + 2 * N_Z + N_TOP])
    np.testing.assert_allclose(some.values, wanted.values, rtol=1e-12, atol=1e-13)


def test_what_is_recorded_gated_or_narrow_stays(rng):
    circuit = TwoLevels(
        weights=rng.standard_normal((N_X, N_Z)),
        top=rng.standard_normal((N_Z, N_TOP)),
        precision=0.7,
    )
    parts = circuit.populations, circuit.projections
    assert "below" in [one.name for one in bypass(*parts, keep=["below"])[0]]
    # A one-to-one path through `above` costs nothing, so nothing is gained by leaving it out.
    assert "above" in [one.name for one in bypass(*parts, keep=[])[0]]
    delayed = [*parts[1][:2], Projection("below", "z", circuit.weights.T, "ascending", delay=0.01)]
    assert "below" in [one.name for one in bypass(parts[0], delayed, keep=[])[0]]


@pytest.mark.parametrize("precision", ["scalar", "diagonal", "full"])
def test_replicas_keep_their_own_precisions(rng, precision):
    circuits = [
        TwoLevels(
            weights=0.4 * rng.standard_normal((N_X, N_Z)),
            top=0.5 * rng.standard_normal((N_Z, N_TOP)),
            precision=(1.0 + 0.7 * i) * np.asarray(precisions(rng)[precision]),
        )
        for i in range(3)
    ]
    stimulus = stimulus_array(rng.standard_normal((2, 2, N_X)), frame_duration=0.05)
    together = simulate_replicas(circuits, stimulus, record=["z", "top"])["rate"].values
    alone = [simulate(one, stimulus, record=["z", "top"])["rate"].values for one in circuits]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("precision", [0.7, np.array([0.7, 4.0, 0.2]), np.diag([0.7, 4.0, 0.2])])
def test_precision_is_carried_past_a_one_to_one_path(rng, precision):
    before, after = rng.standard_normal((3, 2)), rng.standard_normal((4, 3))
    full = precision * np.eye(3) if np.ndim(precision) < 2 else precision
    np.testing.assert_allclose(_product(after, precision, before), after @ full @ before)
    np.testing.assert_allclose(_product(None, precision, before), full @ before)
    np.testing.assert_allclose(_product(after, precision, None), after @ full)
