"""How fast are RDMs, the RSA bootstrap, CKA and ridge, beside rsatoolbox and scikit-learn?

Run ``python benchmarks/bench_rsa.py``; it takes some minutes on one core. Equal results are checked
before anything is timed. It writes ``benchmarks/results/rsa.json`` and the table in
``benchmarks/README.md``. rsatoolbox draws from numpy's global state; the same draws are replayed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import rsatoolbox  # noqa: E402
import rsatoolbox.data  # noqa: E402
import rsatoolbox.inference.evaluate as peer  # noqa: E402
from rsatoolbox.rdm.calc import calc_rdm  # noqa: E402
from sklearn.linear_model import Ridge  # noqa: E402
from sklearn.model_selection import KFold  # noqa: E402

from pcsim.measures import (  # noqa: E402
    bootstrap_rsa,
    correlation_rdm,
    crossnobis_rdm,
    euclidean_rdm,
    linear_cka,
    ridge_encoding,
)
from pcsim.storage import write_json, write_text  # noqa: E402

HERE = Path(__file__).resolve().parent
PENALTIES = tuple(10.0**k for k in range(-3, 6))
Case = tuple[Callable[[], Any], Callable[[], Any]]


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


def bootstraps(n_conditions: int, draws: int, *, ceiling: bool = False) -> dict[str, Case]:
    """Return the stimulus bootstrap of one model against eight subjects."""
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(n_conditions, 20))
    data = euclidean_rdm(shared + rng.normal(size=(8, n_conditions, 20)))
    model = euclidean_rdm(shared + rng.normal(size=shared.shape))[None]
    fixed = rsatoolbox.model.ModelFixed("model", rsatoolbox.rdm.RDMs(model))
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


def alignments(n_stimuli: int, n_units: int) -> dict[str, Case]:
    """Return CKA, which in rsatoolbox is the whitened cosine of squared distances."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, n_stimuli, n_units))
    y = y + x

    def theirs() -> Any:
        rdms = [calc_rdm(rsatoolbox.data.Dataset(a), method="euclidean") for a in (x, y)]
        return rsatoolbox.rdm.compare(*rdms, method="cosine_cov").item()

    return {
        f"linear CKA, {n_stimuli:,} stimuli, {n_units} units": (lambda: linear_cka(x, y), theirs)
    }


def encodings(n_stimuli: int, n_features: int, n_units: int) -> dict[str, Case]:
    """Return nested ridge, 5 by 5 folds, a penalty a unit; scikit-learn fits all units at once."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n_stimuli, n_features))
    weights = rng.normal(size=(n_features, n_units)) / np.sqrt(n_features)
    y = x @ weights + rng.uniform(0.2, 5.0, n_units) * rng.normal(size=(n_stimuli, n_units))
    name = f"nested ridge, {n_stimuli:,} stimuli, {n_features:,} features, {n_units} units"
    return {
        name: (lambda: ridge_encoding(x, y, penalties=PENALTIES).prediction, lambda: nested(x, y))
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


def measure(name: str, case: Case, repeats: int) -> dict[str, Any]:
    """Check that both agree, then time them in turns."""
    ours, theirs = case
    a, b = np.asarray(ours()), np.asarray(theirs())
    difference = float(np.abs(a - b).max() / np.abs(b).max())
    if not difference < 1e-8:
        sys.exit(f"{name}: results differ by {difference:.1e}; nothing was timed.")
    taken: dict[str, list[float]] = {"pcsim": [], "peer": []}
    slow = False
    for repeat in range(repeats):
        for way, function in (("pcsim", ours), ("peer", theirs)):
            # A peer that takes half a minute is timed once.
            if repeat and slow and way == "peer":
                continue
            start = time.process_time()
            function()
            taken[way].append(time.process_time() - start)
        slow = taken["peer"][0] > 30.0
    median = {way: statistics.median(times) for way, times in taken.items()}
    row = {
        "case": name,
        "peer": "scikit-learn" if "ridge" in name else "rsatoolbox",
        "seconds": taken,
        "median_seconds": median,
        "times_faster": median["peer"] / median["pcsim"],
        "largest_relative_difference": difference,
    }
    print(f"{name}: {row['times_faster']:.1f} times faster", flush=True)
    return row


def table(report: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| measure | peer | pcsim, ms | peer, ms | times faster | largest relative difference |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        ours, theirs = (1e3 * row["median_seconds"][way] for way in ("pcsim", "peer"))
        lines.append(
            f"| {row['case']} | {row['peer']} | {ours:,.3g} | {theirs:,.0f} "
            f"| {row['times_faster']:.1f} | {row['largest_relative_difference']:.0e} |"
        )
    machine = report["machine"]
    lines += [
        "",
        f"Processor time, median of {machine['repeats']} in turns, one thread of "
        f"{machine['processor']}, Python {machine['python']}, NumPy {machine['numpy']}, rsatoolbox "
        f"{machine['rsatoolbox']}, scikit-learn {machine['scikit-learn']}; load "
        f"{machine['load']:.1f} at the start.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all, print it, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--large-draws", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    cases = {
        **distances(92, 300, 4),
        **distances(1000, 300, 4),
        **bootstraps(92, options.draws),
        **bootstraps(92, options.draws // 10, ceiling=True),
        **bootstraps(1000, options.large_draws),
        **alignments(1000, 300),
        **encodings(1000, 200, 50),
        **encodings(400, 1500, 50),
    }
    report = {
        "machine": {
            "processor": processor(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "rsatoolbox": version("rsatoolbox"),
            "scikit-learn": version("scikit-learn"),
            "load": os.getloadavg()[0],
            "repeats": options.repeats,
        },
        "rows": [measure(name, case, options.repeats) for name, case in cases.items()],
    }
    text = table(report)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "rsa.json", report)
    readme = HERE / "README.md"
    if options.out == HERE / "results" and "<!-- rsa -->\n" in readme.read_text():
        before, _, rest = readme.read_text().partition("<!-- rsa -->\n")
        after = rest.partition("<!-- /rsa -->")[2]
        write_text(readme, f"{before}<!-- rsa -->\n{text}<!-- /rsa -->{after}")


def processor() -> str:
    """Return what the processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
