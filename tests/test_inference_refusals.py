"""Every border of the room meets every kind of nonsense: an answer, or words that tell what to do.

Never a traceback from inside an array library.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcsim.inference import (
    Flat,
    GaussianPrior,
    Hierarchy,
    Level,
    SparsePrior,
    free_energy,
    gradient,
    map_exact,
    map_gauss_newton,
    map_gradient,
    stable_step,
)
from pcsim.learning import learn, learn_precision, learn_weights
from pcsim.nonlinearity import nonlinearity, power, soft_threshold
from pcsim.normalization import DivisiveNormalization
from pcsim.whitening import FrameDifference, SpatioTemporal, TemporalAR, Whitening

NONSENSE = {
    "none": None,
    "text": "a",
    "bytes": b"a",
    "nan": np.nan,
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "minus one": -1,
    "empty list": [],
    "nested empty": [[]],
    "dict": {},
    "texts": np.array(["a"]),
    "objects": np.array([None, 1], dtype=object),
    "wrong size": np.ones(7),
    "too many axes": np.ones((2, 2, 2, 2)),
    "no trials": np.zeros((0, 3)),
    "no units": np.zeros((3, 0)),
    "complex": 1j * np.ones(3),
    "nans": np.full((5, 3), np.nan),
    "other library": torch.ones(3),
    "function": lambda x: x,
    "date": np.datetime64("2017-02-01"),
    "object": object(),
}
W = np.arange(6.0).reshape(3, 2)
MODEL = Hierarchy((Level(W, 0.7),), (GaussianPrior(0.3, 4.0),))
X, MU = np.ones((5, 3)), np.ones((5, 2))
SAMPLES = np.random.default_rng(0).normal(size=(50, 3))
POOL = DivisiveNormalization(np.ones((3, 3)), 0.7)

BORDERS = {
    "Level.weights": Level,
    "Level.precision": lambda b: Level(W, b),
    "Level.outer": lambda b: Level(W, 0.7, b),
    "GaussianPrior.mean": GaussianPrior,
    "GaussianPrior.precision": lambda b: GaussianPrior(0.0, b),
    "SparsePrior": SparsePrior,
    "Hierarchy.levels": lambda b: Hierarchy(b, (Flat(),)),
    "Hierarchy.level": lambda b: Hierarchy((b,), (Flat(),)),
    "Hierarchy.priors": lambda b: Hierarchy((Level(W),), b),
    "free_energy.hierarchy": lambda b: free_energy(b, [X, MU]),
    "free_energy.states": lambda b: free_energy(MODEL, b),
    "free_energy.x": lambda b: free_energy(MODEL, [b, MU]),
    "gradient.mu": lambda b: gradient(MODEL, [X, b]),
    "map_gradient.x": lambda b: map_gradient(MODEL, b),
    "map_gradient.n_steps": lambda b: map_gradient(MODEL, X, n_steps=b),
    "map_gradient.tol": lambda b: map_gradient(MODEL, X, tol=b),
    "map_gradient.step": lambda b: map_gradient(MODEL, X, step=b),
    "map_gradient.clamp": lambda b: map_gradient(MODEL, X, clamp=b),
    "map_gradient.clamped": lambda b: map_gradient(MODEL, X, clamp={1: b}),
    "map_gauss_newton": lambda b: map_gauss_newton(MODEL, b),
    "map_exact": lambda b: map_exact(MODEL, b),
    "map_exact.hierarchy": lambda b: map_exact(b, X),
    "stable_step.free": lambda b: stable_step(MODEL, [X, MU], free=b),
    "stable_step.level": lambda b: stable_step(MODEL, [X, MU], free=[b]),
    "learn.x": lambda b: learn(MODEL, b, learning_rate=0.1),
    "learn.learning_rate": lambda b: learn(MODEL, X, learning_rate=b),
    "learn_weights": lambda b: learn_weights(MODEL, [X, b], learning_rate=0.1),
    "learn_precision": lambda b: learn_precision(MODEL, b),
    "Whitening.kind": Whitening,
    "Whitening.ridge": lambda b: Whitening(ridge=b),
    "Whitening.rotation": lambda b: Whitening(rotation=b).fit(SAMPLES),
    "Whitening.fit": lambda b: Whitening().fit(b),
    "Whitening.fit_covariance": lambda b: Whitening().fit_covariance(b),
    "Whitening.forward": lambda b: Whitening().fit(SAMPLES).forward(b),
    "TemporalAR": TemporalAR,
    "TemporalAR.fit": lambda b: TemporalAR(1).fit(b),
    "FrameDifference": lambda b: FrameDifference().forward(b),
    "SpatioTemporal": lambda b: SpatioTemporal(b, FrameDifference()).fit(X),
    "DivisiveNormalization": DivisiveNormalization,
    "DivisiveNormalization.semisaturation": lambda b: DivisiveNormalization(np.ones((3, 3)), b),
    "DivisiveNormalization.forward": POOL.forward,
    "DivisiveNormalization.inverse": POOL.inverse,
    "soft_threshold": soft_threshold,
    "power": power,
    "nonlinearity": nonlinearity,
}
LAWFUL = {
    ("Level.weights", "too many axes"),
    ("GaussianPrior.mean", "minus one"),
    ("GaussianPrior.mean", "wrong size"),
    ("GaussianPrior.mean", "other library"),
    ("GaussianPrior.precision", "wrong size"),
    ("GaussianPrior.precision", "other library"),
    ("map_gradient.x", "none"),
    ("map_gradient.step", "none"),
    ("map_gradient.clamp", "none"),
    ("map_gradient.clamp", "dict"),
    ("map_gauss_newton", "none"),
    ("map_exact", "none"),
    ("stable_step.free", "none"),
    ("Whitening.rotation", "none"),
    ("FrameDifference", "too many axes"),
}
"""Pairs that make sense after all: a free input, replica-batched weights, no sizes to compare."""


@pytest.mark.parametrize("border", BORDERS)
def test_nonsense_is_refused_in_words(border):
    for what, value in NONSENSE.items():
        if (border, what) in LAWFUL:
            BORDERS[border](value)
            continue
        with pytest.raises((ValueError, TypeError)) as caught:
            BORDERS[border](value)
        message = str(caught.value)
        assert ": found " in message, (what, message)
        assert ", expected " in message, (what, message)
