"""Sweeps: every point is the run of its own, whatever ran beside it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from pcsim import sweep as sweep_module
from pcsim.circuit import Circuit, Local, Population, Projection, simulate
from pcsim.kinds import Error, Latent
from pcsim.priors import GaussianPrior
from pcsim.responses import select
from pcsim.stimulus import stimulus_array
from pcsim.sweep import sweep


@dataclass(frozen=True, kw_only=True)
class Pair(Circuit):
    """Errors and latents with everything that one may want to sweep."""

    tau: float = 0.02
    gain: float = 0.7
    delay: float = 0.0
    width: float = 0.5
    n_latent: int = 6
    prior: str = "weak"
    noise: float = 0.0
    weights: np.ndarray | None = None
    record_dt: float | None = 0.01

    @property
    def populations(self):
        precision = {"weak": 0.4, "strong": 4.0}[self.prior]
        latent = Latent(self.tau, prior=GaussianPrior(precision=precision))
        return (
            Population("xi", Error(0.02, variance=4.0), 6, 0, "weighted_error"),
            Population("mu", latent, self.n_latent, 1, "latent", noise=self.noise),
        )

    @property
    def projections(self):
        down = np.eye(6, self.n_latent) if self.weights is None else self.weights
        blur = Local((2, 3), np.array([[self.width, 1.0, self.width]]))
        return (
            Projection("stimulus", "xi", blur, port="observed"),
            Projection("mu", "xi", down, port="predicted", sign=self.gain, delay=self.delay),
            Projection("xi", "mu", down.T, port="ascending"),
        )


@pytest.fixture
def stimulus(rng):
    return stimulus_array(rng.normal(size=(3, 2, 6)), frame_duration=0.02, condition=list("abc"))


GRIDS = {
    "numbers": {"tau": [0.01, 0.03], "gain": [0.2, 0.7, 1.3]},
    "delays": {"delay": [0.0, 0.004, 0.01], "gain": [0.7, 0.2]},
    "time steps": {"dt": [1e-3, 5e-4], "integrator": ["euler", "rk4"]},
    "kernels": {"width": [0.1, 0.4], "prior": ["weak", "strong"]},
    "noise": {"noise": [0.0, 0.3], "tau": [0.01, 0.03]},
}


@pytest.mark.parametrize("name", GRIDS)
def test_points_are_runs_of_their_own(stimulus, name):
    grid = GRIDS[name]
    found = sweep(Pair(), stimulus, grid=grid, seed=3)
    assert found.rate.dims == (*grid, "trial", "time", "unit")
    for index in np.ndindex(*(len(values) for values in grid.values())):
        own = {key: grid[key][i] for key, i in zip(grid, index, strict=True)}
        alone = simulate(Pair(**own), stimulus, seed=3)
        point = found.rate.sel(own)
        np.testing.assert_allclose(point.values, alone.rate.values, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(point.time, alone.time)
    assert found.condition.values.tolist() == list("abc")
    assert found.population.values[-1] == "latent"


def test_equal_structures_run_in_one_batch(stimulus, monkeypatch):
    sizes = []
    original = sweep_module.simulate_replicas

    def counted(circuits, *args, **options):
        sizes.append(len(circuits))
        return original(circuits, *args, **options)

    monkeypatch.setattr(sweep_module, "simulate_replicas", counted)
    sweep(Pair(), stimulus, grid={"delay": [0.0, 0.004], "tau": [0.01, 0.02], "width": [0.1, 0.3]})
    assert sizes == [4, 4]
    sizes.clear()
    monkeypatch.setattr(sweep_module, "_BATCH", 3 * 12 * 3)
    sweep(Pair(), stimulus, grid={"tau": [0.01, 0.02, 0.03, 0.04]}, record=["mu"])
    assert sizes == [3, 1]


def test_a_measure_is_kept_instead_of_the_rates(stimulus):
    def power(responses):
        return (select(responses, population="latent").rate ** 2).mean(("time", "unit"))

    grid = {"n_latent": [2, 6], "dt": [1e-3, 5e-4]}
    found = sweep(Pair(record_dt=None), stimulus, grid=grid, measure=power)
    assert found.measure.dims == ("n_latent", "dt", "trial")
    alone = power(simulate(Pair(n_latent=2, dt=5e-4, record_dt=None), stimulus))
    np.testing.assert_allclose(found.measure.sel(n_latent=2, dt=5e-4), alone, rtol=1e-12)
    number = sweep(Pair(), stimulus, grid={"tau": [0.01]}, measure=lambda r: r.sizes["unit"])
    assert number.measure.values.tolist() == [12]


def test_arrays_are_labelled_by_their_place(rng, stimulus):
    weights = [rng.normal(size=(6, 6)) / 6 for _ in range(3)]
    found = sweep(Pair(), stimulus, grid={"weights": weights}, record=["mu"])
    assert found["weights"].values.tolist() == [0, 1, 2]
    alone = simulate(Pair(weights=weights[2]), stimulus, record=["mu"])
    np.testing.assert_allclose(found.rate.sel(weights=2), alone.rate.values, atol=1e-12)


def test_the_point_that_diverges_is_named_or_left_out(stimulus):
    circuit, longer = (
        Pair(integrator="euler"),
        stimulus.assign_coords(time=[0.0, 0.5], frame_duration=0.5),
    )
    grid = {"gain": [0.2, 0.7, -40.0, 0.9], "tau": [0.02, 0.03]}
    with pytest.raises(RuntimeError, match=r"point gain=-40, tau=0.02, Pair: found activity"):
        sweep(circuit, longer, grid=grid)
    found = sweep(circuit, longer, grid=grid, on_divergence="nan").rate
    bad = np.isnan(found.values).all(axis=(2, 3, 4))
    assert bad.tolist() == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]
    alone = simulate(dataclasses.replace(circuit, gain=0.9, tau=0.03), longer)
    np.testing.assert_allclose(found.values[3, 1], alone.rate.values, atol=1e-12)


def test_long_sweeps_say_how_far_they_are(stimulus, monkeypatch, capsys):
    monkeypatch.setattr(sweep_module, "_SAY_EVERY", 0.0)
    sweep(Pair(), stimulus, grid={"tau": [0.01, 0.02]})
    assert "sweep: 2 of 2 points" in capsys.readouterr().err


def test_what_is_no_grid_is_refused(stimulus, refused):
    circuit = Pair()
    assert "Did you mean 'gain'?" in refused(sweep, circuit, stimulus, grid={"gian": [0.7]})
    for grid in ({}, None, [("gain", [0.7])]):
        assert "mapping" in refused(sweep, circuit, stimulus, grid=grid)
    for values in ([], 0.7, "text"):
        assert "at least one value" in refused(sweep, circuit, stimulus, grid={"gain": values})
    assert "point tau=-0.7" in refused(sweep, circuit, stimulus, grid={"tau": [0.7, -0.7]})
    taken = stimulus.assign_coords(gain=("trial", [0.1, 0.2, 0.3]))
    assert "labels trials" in refused(sweep, circuit, taken, grid={"gain": [0.7]})
    sizes = {"n_latent": [2, 6]}
    assert "give a measure" in refused(sweep, circuit, stimulus, grid=sizes)
    assert "on_divergence" in refused(
        sweep, circuit, stimulus, grid={"gain": [0.7]}, on_divergence="skip"
    )
    assert "'mu'" in refused(sweep, circuit, stimulus, grid={"gain": [0.7]}, record=["muu"])
    assert "Circuit" in refused(sweep, "bogacz_2017", stimulus, grid={"gain": [0.7]})
