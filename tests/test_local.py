"""Local, sparse and untied weights: the same numbers as a dense matrix, on every engine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from scipy.signal import correlate2d

from pcsim import weights_apply, weights_tiles
from pcsim.brian import run_brian
from pcsim.brian_network import BrianNetwork
from pcsim.circuit import Circuit, Local, Population, Projection, simulate, simulate_replicas
from pcsim.engine_bypass import bypass
from pcsim.kinds import Error, Latent, Prediction
from pcsim.priors import GaussianPrior
from pcsim.stimulus import stimulus_array
from pcsim.weights import PerReplica, is_operator, untied
from pcsim.weights_apply import operator

RANK_ONE = np.outer([0.2, 0.7, -0.4, 0.1, 0.3], [0.5, -1.3, 0.4, 0.2, 0.6])
CASES = {
    "full kernel": ((7, 9), (3, 3), {}),
    "even kernel": ((6, 5), (2, 4), {}),
    "separable": ((11, 13), RANK_ONE, {}),
    "larger than the grid": ((3, 4), (7, 5), {}),
    "one row": ((1, 12), (1, 5), {}),
    "channels alike": ((3, 6, 7), (3, 3), {}),
    "bank": ((6, 7), (5, 1, 3, 3), {}),
    "channels mixed": ((3, 6, 7), (2, 3, 3, 5), {}),
    "stride": ((7, 9), (3, 3), {"stride": 2}),
    "stride of a bank": ((3, 8, 7), (4, 3, 3, 4), {"stride": (3, 2)}),
    "tiles": ((300, 150), (3, 5), {}),
    "no weight": ((4, 5), np.zeros((3, 3)), {}),
}


@pytest.fixture(autouse=True)
def _tiles(monkeypatch):
    """Use tiles for small grids too, which otherwise are multiplied as sparse matrices."""
    monkeypatch.setattr(weights_apply, "_SMALL", 0)


def local(rng, name, boundary="zero"):
    grid, kernel, options = CASES[name]
    kernel = rng.normal(size=kernel) if isinstance(kernel, tuple) else kernel
    return Local(grid, kernel, boundary=boundary, **options)


def fits(name, boundary):
    return boundary == "zero" or name != "larger than the grid"


ALL = [(name, b) for name in CASES for b in ("zero", "periodic") if fits(name, b)]


def multiplied(weights, values, xp=np, sign=1.0):
    values = xp.asarray(values)
    like = xp.zeros((*values.shape[:-1], weights.shape[-2]), dtype=xp.float64)
    return np.asarray(operator(weights, sign, like)(values))


@pytest.mark.parametrize(("name", "boundary"), ALL)
def test_product_is_that_of_the_matrix(rng, name, boundary):
    weights = local(rng, name, boundary)
    for one in (weights, weights.T):
        matrix = one.to_sparse().tocsr()
        assert matrix.shape == one.shape
        values = rng.normal(size=(2, 3, one.shape[1]))
        expected = (matrix @ values.reshape(6, -1).T).T.reshape(2, 3, -1)
        found = multiplied(one, values, sign=-0.7)
        np.testing.assert_allclose(found, -0.7 * expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["full kernel", "bank", "separable"])
def test_small_grids_and_small_tiles_agree(rng, monkeypatch, name):
    weights = local(rng, name, "periodic")
    values = rng.normal(size=(5, weights.shape[1]))
    whole = multiplied(weights, values)
    monkeypatch.setattr(weights_tiles, "_TILE", 200)
    np.testing.assert_allclose(multiplied(weights, values), whole, atol=1e-12)
    monkeypatch.setattr(weights_apply, "_SMALL", 10**6)
    np.testing.assert_allclose(multiplied(weights, values), whole, atol=1e-12)


@pytest.mark.parametrize(("name", "boundary"), ALL)
@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_other_libraries_agree(rng, name, boundary, library):
    xp = pytest.importorskip(library)
    weights = local(rng, name, boundary)
    for one in (weights, weights.T):
        values = rng.normal(size=(2, one.shape[1]))
        found = multiplied(one, values, xp, sign=0.7)
        np.testing.assert_allclose(found, multiplied(one, values, sign=0.7), rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", ["zero", "periodic"])
def test_matrix_is_the_correlation_of_scipy(rng, boundary):
    kernel, image = rng.normal(size=(3, 5)), rng.normal(size=(8, 9))
    mode = {"zero": "fill", "periodic": "wrap"}[boundary]
    expected = correlate2d(image, kernel, mode="same", boundary=mode)
    found = Local((8, 9), kernel, boundary=boundary).toarray() @ image.ravel()
    np.testing.assert_allclose(found, expected.ravel(), atol=1e-13)


@pytest.mark.parametrize(("name", "boundary"), ALL)
def test_adjoint_moves_across_the_inner_product(rng, name, boundary):
    weights = local(rng, name, boundary)
    x, y = rng.normal(size=weights.shape[1]), rng.normal(size=weights.shape[0])
    up, down = multiplied(weights, x[None])[0] @ y, x @ multiplied(weights.T, y[None])[0]
    assert up == pytest.approx(down, abs=1e-10)
    assert weights.T.T.grid_out == weights.grid_out
    assert weights.T.grid_in == weights.grid_out


def test_a_kernel_sees_where_it_is_centred():
    kernel = np.array([[0.0, 0.0, 0.0], [0.0, 0.7, 4.0], [0.0, 0.0, 0.0]])
    row = Local((3, 4), kernel).toarray()[5].reshape(3, 4)
    np.testing.assert_array_equal(row, [[0] * 4, [0, 0.7, 4.0, 0], [0] * 4])
    strided = Local((4, 5), kernel, stride=2).toarray()
    assert strided.shape == (6, 20)
    assert strided[4].reshape(4, 5)[2, 2:4].tolist() == [0.7, 4.0]


def test_untied_kernels_are_rows_of_their_own(rng):
    kernels = rng.normal(size=(4, 5, 3, 3))
    matrix = untied((4, 5), kernels, boundary="periodic").toarray()
    for y, x in ((0, 0), (2, 3)):
        own = Local((4, 5), kernels[y, x], boundary="periodic").toarray()
        np.testing.assert_allclose(matrix[5 * y + x], own[5 * y + x])


# In circuits


@dataclass(frozen=True, kw_only=True)
class Sheet(Circuit):
    """Errors of an image, predicted by latents on a coarser grid through gates and delays."""

    weights: Any
    lateral: Any = None
    delay: float = 0.0
    gain: float = 0.9
    integrator: str = "euler"

    @property
    def populations(self):
        n, m = self.weights.shape[-2:]
        latent = Latent(0.02, inner="tanh", prior=GaussianPrior(precision=0.7))
        return (
            Population("xi", Error(0.02, variance=4.0), n, 0, "weighted_error"),
            Population("prediction", Prediction(outer="tanh"), n, 0, "prediction"),
            Population("mu", latent, m, 1, "latent"),
        )

    @property
    def projections(self):
        down = self.weights
        up = down.T if down.ndim == 2 else np.swapaxes(down, -1, -2)
        return (
            Projection("stimulus", "xi", self.lateral, port="observed"),
            Projection("mu", "prediction", down, sign=self.gain, delay=self.delay),
            Projection("prediction", "xi", port="predicted"),
            Projection("xi", "mu", up, "ascending", gate="prediction", delay=self.delay),
        )


GRID = (6, 8)


def sheet(rng, **changes):
    down = Local(GRID, rng.normal(size=(3, 3)) / 3, stride=2).T
    lateral = Local(GRID, rng.normal(size=(3, 3)), boundary="periodic")
    return Sheet(weights=down, lateral=lateral, **changes)


def frames(rng, n_trials=3):
    return stimulus_array(rng.normal(size=(n_trials, 3, 48)), frame_duration=0.02)


def other(circuit, form):
    return dataclasses.replace(
        circuit, weights=form(circuit.weights), lateral=form(circuit.lateral)
    )


def dense(weights):
    return weights.toarray()


def sparse(weights):
    return scipy.sparse.csr_array(weights.to_sparse())


@pytest.mark.parametrize("delay", [0.0, 0.005])
@pytest.mark.parametrize("integrator", ["euler", "exponential_euler", "rk4"])
def test_circuit_runs_as_with_a_matrix(rng, delay, integrator):
    circuit, stimulus = sheet(rng, delay=delay, integrator=integrator), frames(rng)
    expected = simulate(other(circuit, dense), stimulus).rate.values
    for one in (circuit, other(circuit, sparse)):
        np.testing.assert_allclose(simulate(one, stimulus).rate.values, expected, atol=1e-12)


@pytest.mark.parametrize("form", [lambda w: w, sparse])
def test_torch_runs_local_and_sparse_weights(rng, form):
    torch = pytest.importorskip("torch")
    circuit, stimulus = other(sheet(rng, delay=0.004), form), frames(rng)
    theirs = simulate(circuit, stimulus, xp=torch).rate.values
    np.testing.assert_allclose(theirs, simulate(circuit, stimulus).rate.values, atol=1e-10)
    pair = [circuit, dataclasses.replace(circuit, gain=0.4)]
    theirs = simulate_replicas(pair, stimulus, xp=torch).rate.values
    np.testing.assert_allclose(theirs, simulate_replicas(pair, stimulus).rate.values, atol=1e-10)


@pytest.mark.parametrize("delay", [0.0, 0.004])
def test_brian_takes_the_same_steps(rng, delay):
    circuit, stimulus = sheet(rng, delay=delay), frames(rng, n_trials=2)
    theirs = run_brian(circuit, stimulus).rate.values
    np.testing.assert_allclose(theirs, simulate(circuit, stimulus).rate.values, atol=1e-12)


def test_brian_holds_a_frame_without_python_between_steps(rng, refused):
    brian2 = pytest.importorskip("brian2")
    circuit, stimulus = sheet(rng), frames(rng, n_trials=2).isel(time=[0])

    def network(one):
        parts = one.populations, one.projections
        return BrianNetwork(brian2, *parts, stimulus.values, dt=one.dt)

    target = brian2.prefs.codegen.target
    try:
        brian2.prefs.codegen.target = "numpy"
        with np.errstate(all="ignore"):
            (monitor,) = network(circuit).hold(["mu"], 20)
            slow = network(dataclasses.replace(circuit, delay=0.004))
            slow.run([0, 0], ["mu"], every=1, n_recorded=1)
    finally:
        brian2.prefs.codegen.target = target
    rate = np.asarray(monitor.rate_)[:, -1].reshape(2, -1)
    ours = simulate(circuit, stimulus, record=["mu"]).rate.values
    assert ours.shape[1] == 20
    np.testing.assert_allclose(rate, ours[:, -1], atol=1e-12)
    assert "delay" in refused(slow.hold, ["mu"], 20)


@pytest.mark.parametrize("form", [lambda w: w, sparse])
@pytest.mark.parametrize("differing", ["gain", "weights", "nothing"])
def test_replicas_are_the_circuits_one_by_one(rng, form, differing):
    first, stimulus = other(sheet(rng), form), frames(rng)
    second = {
        "gain": dataclasses.replace(first, gain=0.3),
        "weights": dataclasses.replace(other(sheet(rng), form), lateral=first.lateral),
        "nothing": other(dataclasses.replace(first), lambda w: w.copy() if form is sparse else w),
    }[differing]
    batch = simulate_replicas([first, second], stimulus).rate.values
    alone = [simulate(one, stimulus).rate.values for one in (first, second)]
    np.testing.assert_allclose(batch, np.concatenate(alone), atol=1e-13)


def test_bypass_leaves_errors_with_local_weights(rng):
    down = Local(GRID, rng.normal(size=(3, 3)) / 3, stride=2).T

    @dataclass(frozen=True, kw_only=True)
    class Direct(Circuit):
        weights: Any

        @property
        def populations(self):
            latent = Latent(0.02, prior=GaussianPrior(precision=0.7))
            return (
                Population("xi", Error(tau=None, precision=0.7), 48, 0, "weighted_error"),
                Population("mu", latent, 12, 1, "latent"),
            )

        @property
        def projections(self):
            return (
                Projection("stimulus", "xi", port="observed"),
                Projection("mu", "xi", self.weights, port="predicted"),
                Projection("xi", "mu", self.weights.T, port="ascending"),
            )

    ours, theirs = Direct(weights=down), Direct(weights=down.toarray())
    assert len(bypass(ours.populations, ours.projections, keep=["mu"])[0]) == 2
    assert len(bypass(theirs.populations, theirs.projections, keep=["mu"])[0]) == 1
    stimulus = frames(rng)
    rates = [simulate(one, stimulus, record=["mu"]).rate.values for one in (ours, theirs)]
    np.testing.assert_allclose(*rates, atol=1e-12)


def test_what_fits_no_grid_is_refused(rng, refused):
    kernel = np.ones((3, 3))
    for grid, words in (
        ((4,), "grid"),
        ((4, 0), "grid"),
        ("ab", "grid"),
        ((4, 5.0), "grid"),
        (None, "grid"),
    ):
        assert words in refused(Local, grid, kernel)
    for bad in (
        np.ones(3),
        np.full((3, 3), np.nan),
        "text",
        np.ones((0, 3)),
        np.ones((2, 2, 3, 3)),
    ):
        assert "kernel" in refused(Local, (4, 5), bad)
    assert "Did you mean 'periodic'?" in refused(Local, (4, 5), kernel, boundary="period")
    assert "stride" in refused(Local, (4, 5), kernel, stride=0)
    assert "no larger" in refused(Local, (2, 5), kernel, boundary="periodic")
    circuit = sheet(rng)
    turned = dataclasses.replace(circuit, lateral=Local((5, 8), kernel))
    assert "weights of shape (40, 40)" in refused(simulate, turned, frames(rng))
    short = stimulus_array(rng.normal(size=(1, 1, 47)), frame_duration=0.02)
    assert "47 features" in refused(simulate, circuit, short)


def test_operators_are_told_from_matrices(rng):
    weights = local(rng, "full kernel")
    assert is_operator(PerReplica((weights, weights)))
    assert PerReplica((weights, weights)).shape == (2, 63, 63)
    assert not is_operator(np.eye(3))
