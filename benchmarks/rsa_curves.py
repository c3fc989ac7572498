"""What similarity costs against conditions, units and replicas, beside two other libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rsa_cases import Case, alignments, bootstraps, correlations, encodings

__all__ = ["curve_table", "curves", "draw"]

VARIED = {
    "conditions": (32, 64, 128, 256),
    "units": (30, 100, 300, 1000),
    "replicas": (1, 4, 16),
}
FIXED = {"conditions": 100, "units": 100, "replicas": 1}
DRAWS = 20
# The bootstrap starts from RDMs; ridge takes replicas one by one in both libraries.
LEFT_OUT = (("RSA bootstrap", "units"), ("nested ridge", "replicas"))
MEASURES = ("correlation RDM", "RSA bootstrap", "linear CKA", "nested ridge")


def cases(sizes: dict[str, int]) -> dict[str, Case]:
    """Return each measure at these sizes."""
    n, units, replicas = (sizes[name] for name in VARIED)
    found = [
        correlations(n, units, replicas),
        {"RSA bootstrap": next(iter(bootstraps(n, DRAWS, n_models=replicas).values()))},
        alignments(n, units, replicas),
        # The model's units are the features, the conditions the stimuli.
        encodings(n, units, 20),
    ]
    each = [next(iter(one.values())) for one in found]
    return dict(zip(MEASURES, each, strict=True))


def curves(
    measure: Callable[[str, Case, int], dict[str, Any]], repeats: int
) -> list[dict[str, Any]]:
    """Time each measure while one of the sizes varies; `measure` checks that both agree."""
    rows = []
    for what, values in VARIED.items():
        for value in values:
            for name, case in cases({**FIXED, what: value}).items():
                if (name, what) in LEFT_OUT:
                    continue
                row = measure(f"{name}, {value:,} {what}", case, repeats)
                rows.append({"varied": what, "value": value, "measure": name, **row})
    return rows


def slope(values: Any, seconds: Any) -> float:
    """Return the exponent by which cost grows over the upper half of the sizes."""
    half = len(values) // 2
    return float(np.polyfit(np.log(values[half:]), np.log(seconds[half:]), 1)[0])


def curve_table(rows: list[dict[str, Any]]) -> str:
    """Return, as Markdown, the cost at every size and the exponent of growth."""
    lines = [
        "| measure | varied | pcsim, ms | peer, ms | times faster | exponent, pcsim and peer |",
        "|---|---|---|---|---|---|",
    ]
    for what in VARIED:
        for name in MEASURES:
            part = [row for row in rows if (row["varied"], row["measure"]) == (what, name)]
            if not part:
                continue
            values = np.array([row["value"] for row in part], dtype=float)
            cells, growth = [], []
            for way in ("pcsim", "peer"):
                seconds = np.array([row["median_seconds"][way] for row in part])
                shown = zip(part, seconds, strict=True)
                cells.append(", ".join(f"{row['value']:,}: {1e3 * s:,.3g}" for row, s in shown))
                growth.append(slope(values, seconds))
            faster = ", ".join(f"{row['times_faster']:.1f}" for row in part)
            exponents = " and ".join(f"{one:.1f}" for one in growth)
            lines.append(f"| {name} | {what} | {cells[0]} | {cells[1]} | {faster} | {exponents} |")
    worst = max(row["largest_relative_difference"] for row in rows)
    others = ", ".join(f"{value} {name}" for name, value in FIXED.items() if value > 1)
    lines += [
        "",
        f"What does not vary: {others}, one replica; {DRAWS} draws and 8 subjects in the "
        "bootstrap, 20 neurons in the ridge, whose features are the model's units. Replicas go in "
        "one call here, one by one there (rsatoolbox's bootstrap takes a list of models). The "
        "exponent is that of the upper half of the sizes. Largest relative difference of a result "
        f"{worst:.0e}.",
    ]
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the curves and save them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(VARIED), figsize=(9, 2.6), sharey=True, layout="constrained")
    for ax, (what, values) in zip(axes, VARIED.items(), strict=True):
        for number, name in enumerate(MEASURES):
            part = [row for row in rows if (row["varied"], row["measure"]) == (what, name)]
            for way, line in (("pcsim", "o-"), ("peer", "s:")) if part else ():
                at = [row["value"] for row in part]
                ms = [1e3 * row["median_seconds"][way] for row in part]
                label = name if way == "pcsim" else None
                face = f"C{number}" if way == "pcsim" else "white"
                ax.loglog(at, ms, line, color=f"C{number}", mfc=face, ms=3.5, lw=1, label=label)
        ax.set_xlabel(what)
        ax.set_xticks(values, [f"{value:,}" for value in values])
        ax.minorticks_off()
    for line, way in (("o-", "pcsim"), ("s:", "rsatoolbox, scikit-learn")):
        face = "white" if line == "s:" else "0.3"
        axes[0].plot([], [], line, color="0.3", mfc=face, ms=3.5, lw=1, label=way)
    axes[0].set_ylabel("processor time (ms)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right center", frameon=False, fontsize=7, handlelength=2.5
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
