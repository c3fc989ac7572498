"""The local field potential against sums made by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from pcsim.circuit import Circuit, Population, Projection
from pcsim.kinds import Latent, Leaky
from pcsim.priors import GaussianPrior
from pcsim.responses import check_responses, open_responses, save, select
from pcsim.stimulus import stimulus_array
from pcsim.synaptic import local_field_potential, pyramids
from pcsim.weights import Local

ONTO = np.array([[0.7, -4.0, 0.0], [-0.3, 0.2, 1.1]])
BACK = np.array([[0.4, -0.6], [0.5, 0.0]])


@dataclass(frozen=True, kw_only=True)
class Two(Circuit):
    """Three cells of layer 4 drive two pyramids of layer 5 that excite and inhibit each other."""

    delay: float = 0.0
    inner: str = "linear"
    onto: Any = None

    @property
    def populations(self):
        pyramid = Latent(tau=0.03, inner=self.inner, prior=GaussianPrior(precision=1.0))
        return (
            Population("cells", Leaky(tau=0.01), 3, 0, "input", "V1", "L4"),
            Population("pyramids", pyramid, 2, 1, "latent", "V1", "L5/6"),
            Population("silent", pyramid, 2, 1, "latent", "V2", "L5/6"),
        )

    @property
    def projections(self):
        onto = ONTO if self.onto is None else self.onto
        return (
            Projection("stimulus", "cells", port="drive"),
            Projection("cells", "pyramids", onto, "ascending", sign=2.0, delay=self.delay),
            Projection("pyramids", "pyramids", BACK, "lateral", sign=-1.0),
        )


def light(rng, n=2):
    return stimulus_array(rng.standard_normal((n, 4, 3)), frame_duration=0.01)


def test_two_populations_by_hand(rng):
    circuit, shown = Two(), light(rng)
    rates = circuit.run(shown)
    lfp = local_field_potential(circuit, rates).lfp
    cells, units = rates.rate.values[..., :3], rates.rate.values[..., 3:5]
    # Column sums of the absolute weights: 2 (0.7 + 0.3), 2 (4 + 0.2), 2 (0 + 1.1); 0.9 and 0.6.
    expected = cells @ np.array([2.0, 8.4, 2.2]) + units @ np.array([0.9, 0.6])
    assert lfp.dims == ("trial", "time", "site")
    assert lfp.site.values.tolist() == ["V1"]
    np.testing.assert_allclose(lfp.values[..., 0], expected, rtol=1e-12)


def test_rates_that_are_not_negative_give_the_sum_of_absolute_currents(rng):
    circuit = Two()
    shown = stimulus_array(rng.uniform(0.5, 2.0, (1, 3, 3)), frame_duration=0.01)
    rates = circuit.run(shown)
    rates["rate"] = abs(rates.rate)
    cells, units = rates.rate.values[0, :, :3], rates.rate.values[0, :, 3:5]
    by_synapse = sum(
        np.abs(2.0 * ONTO[i, j] * cells[:, j]) for i in range(2) for j in range(3)
    ) + sum(np.abs(-BACK[i, j] * units[:, j]) for i in range(2) for j in range(2))
    lfp = local_field_potential(circuit, rates).lfp
    np.testing.assert_allclose(lfp.values[0, :, 0], by_synapse, rtol=1e-12)


@pytest.mark.parametrize("delay", [0.003, 0.0025])
def test_currents_arrive_late(rng, delay):
    circuit = Two(delay=delay, dt=0.0005, record_dt=0.001)
    rates = circuit.run(light(rng))
    lfp = local_field_potential(circuit, rates).lfp.values[..., 0]
    cells, units = rates.rate.values[..., :3], rates.rate.values[..., 3:5]
    sent = np.concatenate([np.zeros((2, 4)), cells @ np.array([2.0, 8.4, 2.2])], axis=1)
    n = cells.shape[1]
    late, earlier = sent[:, 1 : n + 1], sent[:, :n]
    arrived = late if delay == 0.003 else 0.5 * (late + sent[:, 2 : n + 2])
    assert not np.allclose(late, earlier)
    np.testing.assert_allclose(lfp, arrived + units @ np.array([0.9, 0.6]), atol=1e-12)


def test_what_latents_send_is_after_their_nonlinearity(rng):
    circuit = Two(inner="tanh")
    rates = circuit.run(light(rng))
    lfp = local_field_potential(circuit, rates).lfp.values[..., 0]
    cells, units = rates.rate.values[..., :3], rates.rate.values[..., 3:5]
    expected = cells @ np.array([2.0, 8.4, 2.2]) + np.tanh(units) @ np.array([0.9, 0.6])
    np.testing.assert_allclose(lfp, expected, rtol=1e-12)


def test_a_kernel_on_a_grid_counts_like_its_matrix(rng):
    local = Local((1, 3), np.array([[0.4, -0.7, 0.2]]))

    @dataclass(frozen=True, kw_only=True)
    class Grid(Circuit):
        weights: Any = local

        @property
        def populations(self):
            latent = Latent(tau=0.02, prior=GaussianPrior(precision=0.7))
            cells = Population("cells", Leaky(tau=0.01), 3, 0, "input", "V1", "L4")
            return cells, Population("mu", latent, 3, 1, "latent", "V1", "L5/6")

        @property
        def projections(self):
            return (
                Projection("stimulus", "cells", port="drive"),
                Projection("cells", "mu", self.weights, "ascending"),
            )

    shown = light(rng)
    rates = Grid().run(shown)
    lfp = local_field_potential(Grid(), rates).lfp.values
    dense = local_field_potential(Grid(weights=local.toarray()), rates).lfp.values
    by_hand = rates.rate.values[..., :3] @ np.abs(local.toarray()).sum(axis=0)
    np.testing.assert_allclose(lfp[..., 0], by_hand, rtol=1e-12)
    np.testing.assert_allclose(lfp, dense, rtol=1e-12)


def test_sparse_weights_and_sites_by_layer(rng, tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    dense, shown = Two(), light(rng)
    circuit = replace(dense, onto=sparse.csr_array(ONTO))
    with_lfp = local_field_potential(circuit, circuit.run(shown), site="layer")
    assert with_lfp.site.values.tolist() == ["V1 L5/6"]
    plain = local_field_potential(dense, dense.run(shown))
    np.testing.assert_allclose(with_lfp.lfp.values, plain.lfp.values, rtol=1e-12)
    check_responses(with_lfp)
    save(with_lfp, tmp_path / "lfp.nc")
    again = open_responses(tmp_path / "lfp.nc")
    np.testing.assert_array_equal(again.lfp.values, with_lfp.lfp.values)
    assert again.site.values.tolist() == ["V1 L5/6"]


def test_the_stimulus_counts_where_it_drives_the_chosen(rng):
    circuit, shown = Two(), light(rng)
    rates = circuit.run(shown)
    lfp = local_field_potential(circuit, rates, stimulus=shown, populations=["cells"]).lfp
    expected = np.repeat(shown.values.sum(axis=-1), 10, axis=1)
    np.testing.assert_allclose(lfp.values[..., 0], expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"no stimulus.*Give stimulus"):
        local_field_potential(circuit, rates, populations=["cells"])


def test_refusals(rng):
    circuit = Two(delay=0.003)
    assert pyramids(circuit) == ("pyramids", "silent")
    rates = circuit.run(light(rng))
    with pytest.raises(ValueError, match="Record all that projects"):
        local_field_potential(circuit, select(rates, layer="L5/6"))
    with pytest.raises(ValueError, match="Did you mean 'pyramids'"):
        local_field_potential(circuit, rates, populations=["pyramid"])
    with pytest.raises(ValueError, match="even times"):
        local_field_potential(circuit, rates.isel(time=[0, 1, 5]))
    with pytest.raises(ValueError, match="no projections to"):
        local_field_potential(circuit, rates, populations=["silent"])
    with pytest.raises(ValueError, match="Did you mean 'layer'"):
        local_field_potential(circuit, rates, site="layers")
