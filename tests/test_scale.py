"""Large runs: in blocks and tiles as in one piece, with memory for what is recorded only."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from pcsim import engine_run, machine_tiles
from pcsim.circuit import Circuit, Local, Population, Projection, simulate, simulate_replicas
from pcsim.kinds import DivisiveNormalization, Error, Latent, Leaky
from pcsim.machine_tiles import tiles_of
from pcsim.priors import GaussianPrior
from pcsim.stimulus import stimulus_array

KERNEL = np.array([[0.05, 0.1, 0.05], [0.1, 0.3, 0.1], [0.05, 0.1, 0.04]])


@dataclass(frozen=True, kw_only=True)
class Sheet(Circuit):
    """Errors and latents on a grid, and a normalized read-out: a parameter for every unit."""

    grid: tuple[int, int] = (12, 14)
    variance: Any = 4.0
    precision: Any = 0.7
    sign: float = 1.0
    delay: float = 0.0

    @property
    def populations(self):
        n = self.grid[0] * self.grid[1]
        latent = Latent(0.02, prior=GaussianPrior(0.3, self.precision))
        return (
            Population("xi", Error(0.01, variance=self.variance), n, 0, "weighted_error"),
            Population("mu", latent, n, 1, "latent"),
            Population("ratio", DivisiveNormalization(0.02, 0.7), n, 1, "output"),
            Population("late", Leaky(0.02, "tanh"), n, 1, "output"),
        )

    @property
    def projections(self):
        down = Local(self.grid, KERNEL)
        return (
            Projection("stimulus", "xi", port="observed"),
            Projection("mu", "xi", down, port="predicted", delay=self.delay),
            Projection("xi", "mu", down.T, port="ascending", sign=self.sign),
            Projection("mu", "ratio", port="drive"),
            Projection("mu", "ratio", down, port="pool", sign=0.1),
            Projection("xi", "late", port="drive"),
            Projection("stimulus", "late", port="drive"),
            Projection("mu", "late", down, port="drive"),
        )


def frames(rng, grid, n_trials=5, duration=0.01):
    values = rng.uniform(0.2, 2.0, size=(n_trials, 2, grid[0] * grid[1]))
    return stimulus_array(values, frame_duration=duration)


@pytest.mark.parametrize("integrator", ["euler", "exponential_euler", "rk4"])
@pytest.mark.parametrize("replicas", [False, True])
def test_blocks_and_tiles_change_no_rate(rng, monkeypatch, integrator, replicas):
    n = 12 * 14
    stimulus = frames(rng, (12, 14))
    circuits = [
        Sheet(variance=v, precision=p, integrator=integrator, delay=0.004)
        for v, p in ((4.0, 0.7), (rng.uniform(2, 5, n), rng.uniform(0.2, 4, n)))
    ]
    circuits = [Sheet(**{**vars(circuits[1]), "precision": c.precision}) for c in circuits]
    circuits[0] = Sheet(**{**vars(circuits[0]), "precision": np.full(n, 0.7)})

    def run():
        if replicas:
            return simulate_replicas(circuits, stimulus).rate.values
        return simulate(circuits[1], stimulus).rate.values

    whole = run()
    monkeypatch.setattr(machine_tiles, "TILE", 50)
    np.testing.assert_allclose(run(), whole, rtol=1e-13, atol=1e-15)
    monkeypatch.setattr(engine_run, "_BLOCK", 2 * 4 * n)
    np.testing.assert_allclose(run(), whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sizes", [(3, 40_000), (7, 9000), (2, 5, 12_000), (40, 900, 3)])
def test_tiles_cover_every_unit_once(sizes):
    *batch, n = sizes
    tiles = tiles_of(Leaky(0.02), batch, n)
    count = np.zeros(sizes)
    for tile in tiles:
        count[tile.where] += 1
        assert count[tile.where].size <= machine_tiles.TILE
    np.testing.assert_array_equal(count, 1)


def test_coupled_units_and_small_populations_are_not_cut():
    matrix = np.eye(3) + 0.1
    assert not tiles_of(Error(tau=None, precision=matrix), (machine_tiles.TILE,), 3)
    assert not tiles_of(Leaky(0.02), (4,), 100)


def test_recording_one_population_allocates_that_one_only(rng):
    grid, n_trials = (200, 250), 2
    stimulus = frames(rng, grid, n_trials)
    small = Sheet(grid=(4, 5), record_dt=0.001)
    simulate(small, frames(rng, (4, 5)))
    n = grid[0] * grid[1]

    def peak(record):
        tracemalloc.start()
        simulate(Sheet(grid=grid, record_dt=0.001), stimulus, record=record)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    one, more = peak(["mu"]), peak(["mu", "xi", "late"])
    recorded = 8 * n_trials * 20 * n
    # One trial's block at a time: state, change, the guard's copy, the delays' and wires' buffers.
    working = 8 * 4 * n * 6
    labels = 400 * n
    assert one < recorded * 1.15 + working + labels
    assert more - one > 1.9 * recorded


def test_divergence_with_local_weights_names_a_stable_step(rng):
    stimulus = frames(rng, (8, 9), duration=0.5)
    coarse = Sheet(grid=(8, 9), integrator="euler", dt=0.008, variance=3.0)
    with pytest.raises(RuntimeError, match="diverged within") as caught:
        simulate(coarse, stimulus)
    named = float(str(caught.value).split("dt=")[1].rstrip(")."))
    assert 2 * 0.01 / (3.0 + 1.0) < named <= 2 * 0.01 / 3.0
    finer = Sheet(grid=(8, 9), integrator="euler", dt=named, variance=3.0)
    assert abs(simulate(finer, stimulus).rate.values).max() < 10


def test_divergence_with_local_weights_and_delays_names_a_stable_step(rng):
    stimulus = frames(rng, (8, 9), duration=0.5)
    coarse = Sheet(grid=(8, 9), integrator="euler", dt=0.008, variance=3.0, delay=0.016)
    with pytest.raises(RuntimeError, match="diverged within") as caught:
        simulate(coarse, stimulus)
    named = float(str(caught.value).split("dt=")[1].rstrip(")."))
    finer = Sheet(grid=(8, 9), integrator="euler", dt=named, variance=3.0, delay=0.016)
    assert abs(simulate(finer, stimulus).rate.values).max() < 10


@pytest.mark.gpu
def test_a_gpu_gives_the_same_rates(rng):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    stimulus = frames(rng, (40, 50))
    ours = simulate(Sheet(grid=(40, 50), delay=0.003), stimulus)
    theirs = simulate(Sheet(grid=(40, 50), delay=0.003), stimulus, xp=torch, device="cuda")
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-5, atol=1e-8)


def test_torch_gives_the_same_rates(rng):
    torch = pytest.importorskip("torch")
    stimulus = frames(rng, (40, 50))
    ours = simulate(Sheet(grid=(40, 50), delay=0.003), stimulus)
    theirs = simulate(Sheet(grid=(40, 50), delay=0.003), stimulus, xp=torch)
    np.testing.assert_allclose(theirs.rate.values, ours.rate.values, rtol=1e-10, atol=1e-12)
