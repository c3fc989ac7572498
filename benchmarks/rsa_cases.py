"""What is measured beside rsatoolbox and scikit-learn: each case is ours and theirs.

rsatoolbox draws from numpy's global state; the same draws are replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import rsatoolbox
import rsatoolbox.data
import rsatoolbox.inference.evaluate as peer
from rsatoolbox.rdm.calc import calc_rdm
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from pcsim.measures import (
    bootstrap_rsa,
    correlation_rdm,
    crossnobis_rdm,
    euclidean_rdm,
    linear_cka,
    ridge_encoding,
)

__all__ = ["Case", "alignments", "bootstraps", "correlations", "distances", "encodings", "whitened"]

PENALTIES = tuple(10.0**k for k in range(-3, 6))
Case = tuple[Callable[[], Any], Callable[[], Any]]


def correlations(n_conditions: int, n_units: int, n_replicas: int) -> dict[str, Case]:
    """Return correlation distances of replicas of a model: in one call, and one by one."""
    rng = np.random.default_rng(4)
    patterns = rng.normal(size=(n_replicas, n_conditions, n_units))
    sets = [rsatoolbox.data.Dataset(one) for one in patterns]
    return {
        "correlation RDM": (
            lambda: correlation_rdm(patterns),
            lambda: [calc_rdm(one, method="correlation").get_vectors()[0] for one in sets],
        )
    }


def whitened(a: Any, b: Any) -> Any:
    """Return CKA as rsatoolbox has it: the whitened cosine of squared distances."""
    rdms = [calc_rdm(rsatoolbox.data.Dataset(one), method="euclidean") for one in (a, b)]
    return rsatoolbox.rdm.compare(*rdms, method="cosine_cov").item()


def distances(n_conditions: int, n_units: int, n_folds: int) -> dict[str, Case]:
    """Return correlation distances and crossnobis, ours and those of rsatoolbox."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(n_folds, n_conditions, n_units))
    root = rng.normal(size=(n_units, 2 * n_units))
    precision = np.linalg.inv(root @ root.T / (2 * n_units))
    mean = patterns.mean(axis=0)
    single = rsatoolbox.data.Dataset(mean)
    labels = {
        "cond": np.tile(np.arange(n_conditions), n_folds),
        "fold": np.repeat(np.arange(n_folds), n_conditions),
    }
    folded = rsatoolbox.data.Dataset(patterns.reshape(-1, n_units), obs_descriptors=labels)
    crossed = {"descriptor": "cond", "cv_descriptor": "fold", "noise": precision}
    size = f"{n_conditions:,} conditions, {n_units} units"
    return {
        f"correlation RDM, {size}": (
            lambda: correlation_rdm(mean),
            lambda: calc_rdm(single, method="correlation").get_vectors()[0],
        ),
        f"crossnobis RDM, {size}, {n_folds} folds": (
            lambda: crossnobis_rdm(patterns, precision=precision),
            lambda: calc_rdm(folded, method="crossnobis", **crossed).get_vectors()[0],
        ),
    }


def bootstraps(
    n_conditions: int, draws: int, *, ceiling: bool = False, n_models: int = 1
) -> dict[str, Case]:
    """Return the stimulus bootstrap of models against eight subjects."""
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(n_conditions, 20))
    data = euclidean_rdm(shared + rng.normal(size=(8, n_conditions, 20)))
    model = euclidean_rdm(shared + rng.normal(size=(n_models, *shared.shape)))
    fixed = [
        rsatoolbox.model.ModelFixed(f"model {k}", rsatoolbox.rdm.RDMs(one[None]))
        for k, one in enumerate(model)
    ]
    rdms = rsatoolbox.rdm.RDMs(data)
    names = {"pearson": "corr", "spearman": "spearman"}
    extra = ", noise ceiling" if ceiling else ""
    size = f"{n_conditions:,} conditions, 8 subjects, {draws:,} draws{extra}"

    def theirs(method: str) -> Any:
        np.random.seed(3)  # noqa: NPY002
        result = peer.eval_bootstrap_pattern(
            fixed, rdms, method=names[method], N=draws, boot_noise_ceil=ceiling
        )
        bounds = np.asarray(result.noise_ceiling) if ceiling else np.empty(0)
        return np.concatenate([result.evaluations.ravel(), bounds.ravel()])

    def ours(method: str) -> Any:
        np.random.seed(3)  # noqa: NPY002
        taken = [np.random.randint(0, n_conditions, n_conditions) for _ in range(draws)]  # noqa: NPY002
        found = bootstrap_rsa(model, data, method=method, stimuli=taken, ceiling=ceiling)
        bounds = [found.lower, found.upper] if ceiling else []
        return np.concatenate([found.draws.ravel(), *bounds])

    return {
        f"RSA bootstrap, {method}, {size}": (
            lambda method=method: ours(method),
            lambda method=method: theirs(method),
        )
        for method in (("pearson",) if ceiling else names)
    }


def alignments(n_stimuli: int, n_units: int, n_replicas: int = 1) -> dict[str, Case]:
    """Return CKA of replicas with one set of responses."""
    rng = np.random.default_rng(2)
    y, *x = rng.normal(size=(1 + n_replicas, n_stimuli, n_units))
    both = np.stack(x) + y
    return {
        f"linear CKA, {n_stimuli:,} stimuli, {n_units} units": (
            lambda: linear_cka(both, y),
            lambda: [whitened(one, y) for one in both],
        )
    }


def encodings(n_stimuli: int, n_features: int, n_units: int) -> dict[str, Case]:
    """Return nested ridge, 5 by 5 folds, a penalty a unit; scikit-learn fits all units at once."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n_stimuli, n_features))
    weights = rng.normal(size=(n_features, n_units)) / np.sqrt(n_features)
    y = x @ weights + rng.uniform(0.2, 5.0, n_units) * rng.normal(size=(n_stimuli, n_units))
    name = f"nested ridge, {n_stimuli:,} stimuli, {n_features:,} features, {n_units} units"
    return {
        name: (
            lambda: ridge_encoding(x, y, penalties=PENALTIES).prediction,
            lambda: nested(x, y),
        )
    }


def nested(x: Any, y: Any) -> Any:
    """Return cross-validated predictions with scikit-learn's Ridge."""
    prediction = np.empty_like(y)
    for train, test in KFold(5).split(x):
        error = np.zeros((len(PENALTIES), y.shape[1]))
        for inner, held in KFold(5).split(train):
            for row, penalty in enumerate(PENALTIES):
                fit = Ridge(alpha=penalty).fit(x[train[inner]], y[train[inner]])
                error[row] += ((y[train[held]] - fit.predict(x[train[held]])) ** 2).mean(axis=0)
        best = np.array(PENALTIES)[error.argmin(axis=0)]
        prediction[test] = Ridge(alpha=best).fit(x[train], y[train]).predict(x[test])
    return prediction
