"""Closed form, gradient, Gauss-Newton, array circuit, Brian 2 and deep twins: one estimate."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace

import numpy as np
import pytest

from pcsim.brian import run_brian
from pcsim.catalog import load, names
from pcsim.circuit import settle
from pcsim.hierarchy import Flat, GaussianPrior, Hierarchy, Level, SparsePrior, weighted_errors
from pcsim.inference import map_exact, map_gauss_newton, map_gradient
from pcsim.responses import stimulus_array

SIZES = (4, 3, 2)
N_TRIALS = 3
TAU, TAU_ERROR = 0.1, 0.005
"""Seconds. Errors that are as slow as the latents make some nonlinear circuits ring for ever."""
BRIAN_DT = 1e-3
"""Seconds."""


def precision(rng, shape, n):
    """Draw a precision between 0.2 and 5: a number, a diagonal or the eigenvalues of a matrix."""
    values = rng.uniform(0.2, 5.0, n)
    if shape == "scalar":
        return float(values[0])
    if shape == "diagonal":
        return values
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    matrix = basis @ (values[:, None] * basis.T)
    return (matrix + matrix.T) / 2


def model(rng, shape, outer, inner="linear", prior=None):
    # Curved models have several minima when weights are large; small ones leave the lowest alone.
    scale = 1.0 if outer == "linear" else 0.5
    levels = tuple(
        Level(
            scale * rng.normal(size=(below, above)) / np.sqrt(above),
            precision(rng, shape, below),
            outer=outer,
            inner=inner,
        )
        for below, above in itertools.pairwise(SIZES)
    )
    middle, top = (GaussianPrior(rng.normal(size=n), precision(rng, shape, n)) for n in SIZES[1:])
    return Hierarchy(levels, (middle if prior is None else prior, top))


def as_matrix(precision, n):
    return precision if np.ndim(precision) == 2 else precision * np.eye(n)


def closed_form(hierarchy, x):
    """Solve the normal equations of two linear levels with Gaussian priors on both."""
    (low, high), (middle, top) = hierarchy.levels, hierarchy.priors
    n, m = SIZES[1:]
    pi_0, pi_1 = as_matrix(low.precision, SIZES[0]), as_matrix(high.precision, n)
    pi_m, pi_t = as_matrix(middle.precision, n), as_matrix(top.precision, m)
    matrix = np.block(
        [
            [low.weights.T @ pi_0 @ low.weights + pi_1 + pi_m, -pi_1 @ high.weights],
            [-high.weights.T @ pi_1, high.weights.T @ pi_1 @ high.weights + pi_t],
        ]
    )
    pulls = np.tile(np.concatenate([pi_m @ middle.mean, pi_t @ top.mean]), (len(x), 1))
    pulls[:, :n] += x @ pi_0 @ low.weights
    return np.split(np.linalg.solve(matrix, pulls.T).T, [n], axis=1)


def reached(responses, names):
    """Return the last rates of these populations."""
    return [responses.rate.values[:, -1, responses.name.values == name] for name in names]


def difference(found, expected):
    """Return the largest difference of a level relative to the size of that level."""
    pairs = zip(found, expected, strict=True)
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs)


CASES = [
    (shape, outer, "linear", None)
    for shape in ("scalar", "diagonal", "full")
    for outer in ("linear", "tanh")
]
CASES += [("diagonal", "tanh", "tanh", None), ("full", "tanh", "linear", SparsePrior(0.7))]


@pytest.mark.parametrize(("shape", "outer", "inner", "prior"), CASES)
def test_all_ways_lead_to_the_same_estimate(rng, shape, outer, inner, prior):
    hierarchy = model(rng, shape, outer, inner, prior)
    x = rng.normal(size=(N_TRIALS, SIZES[0]))
    best = map_gauss_newton(hierarchy, x)
    latents, errors = list(best.states[1:]), weighted_errors(hierarchy, best.states)
    assert difference(map_gradient(hierarchy, x).states[1:], latents) < 1e-6
    if outer == "linear":
        assert difference(map_exact(hierarchy, x).states[1:], latents) < 1e-6
        assert difference(closed_form(hierarchy, x), latents) < 1e-6

    bogacz = type(load("circuits", "bogacz_2017"))
    circuit = bogacz(hierarchy=hierarchy, tau=TAU, tau_error=TAU_ERROR)
    stimulus = stimulus_array(x[:, None], frame_duration=0.1)
    rest = settle(circuit, stimulus)
    names = ["mu_1", "mu_2", "xi_0", "xi_1"]
    assert difference(reached(rest, names), [*latents, *errors]) < 1e-6

    until = settle(circuit, stimulus, tol=1e-5).time.item()
    held = stimulus_array(x[:, None], frame_duration=until)
    brian = run_brian(circuit, held, dt=BRIAN_DT, record=names)
    assert difference(reached(brian, names), [*latents, *errors]) < 1e-3


def modules():
    return {name: importlib.import_module(f"pcsim.circuits.{name}") for name in names("circuits")}


TWINS = {
    name: module.EQUIVALENT_TO
    for name, module in modules().items()
    if hasattr(module, "EQUIVALENT_TO")
}
"""Every deep twin of the catalog -> the rate circuit that it says it rests with."""
FULL = model(np.random.default_rng(3), "diagonal", "tanh", "tanh", prior=Flat())
CHANGED = {
    "rao_ballard_1999_deep": (
        {"sparse": True, "precision": 0.7, "top_precision": 0.3, "alpha": 0.4, "top_alpha": 0.2,
         "input_gain": 6.0},
        {"n_iterations": 600},
    ),
    "bogacz_2017_deep": (
        {"hierarchy": FULL, "tau": TAU, "tau_error": TAU_ERROR},
        {"n_iterations": 3000, "step": 0.02},
    ),
}  # fmt: skip
"""Twin -> changes of the circuit, away from precisions of 1, and of the twin."""


def shown_to(circuit, rng):
    """Return two frames that are held, of the size that the circuit wants."""
    shape = getattr(circuit, "field_shape", None)
    if shape is None:
        return stimulus_array(rng.normal(size=(2, 1, circuit.n_features)), frame_duration=0.1)
    image = rng.uniform(size=(2, 1, *shape))
    return stimulus_array(image, frame_duration=0.1, px_per_deg=circuit.px_per_deg)


def at_rest(responses):
    """Return (population, level) -> the last rates, (trial, unit)."""
    last = responses.rate.values[:, -1]
    keys = list(zip(responses.population.values, responses.level.values, strict=True))
    return {
        key: last[:, [i for i, other in enumerate(keys) if other == key]]
        for key in sorted(set(keys))
    }


def test_every_twin_has_a_case():
    assert len(TWINS) >= 2
    assert CHANGED.keys() == TWINS.keys()


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("changed", [False, True], ids=["default", "changed"])
def test_every_deep_twin_rests_where_its_circuit_does(twin, changed, rng):
    of_circuit, of_twin = CHANGED[twin] if changed else ({}, CHANGED[twin][1])
    circuit = replace(load("circuits", TWINS[twin]), **of_circuit)
    deep = replace(load("circuits", twin), circuit=circuit, **of_twin)
    shown = shown_to(circuit, rng)
    ours, theirs = at_rest(settle(circuit, shown, tol=1e-7)), at_rest(deep.run(shown))
    shared = [key for key in ours if key in theirs]
    assert {role for role, _ in shared} >= {"latent"}
    assert {role for role, _ in shared} & {"error", "weighted_error"}
    latents = {level for role, level in ours if role == "latent"}
    assert latents == {level for role, level in shared if role == "latent"}
    for key in shared:
        assert np.abs(ours[key] - theirs[key]).max() <= 1e-4 * np.abs(ours[key]).max(), key
        assert np.abs(ours[key]).max() > 1e-2, key
