"""How fast are RDMs, the RSA bootstrap, CKA and ridge, beside rsatoolbox and scikit-learn?

Run ``python benchmarks/bench_rsa.py``; it takes some minutes on one core. Equal results are checked
before anything is timed. It writes ``benchmarks/results/rsa.json``, the tables in
``benchmarks/README.md`` and the curves in ``docs/figures/rsa_cost.png``.
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
from rsa_cases import Case, alignments, bootstraps, distances, encodings  # noqa: E402
from rsa_curves import curve_table, curves, draw  # noqa: E402

from pcsim.storage import read_json, write_json, write_text  # noqa: E402

HERE = Path(__file__).resolve().parent


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
            taken[way].append(seconds_of(function))
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


def seconds_of(function: Callable[[], Any], least: float = 0.03) -> float:
    """Return the processor time of a call, over as many calls as take `least` seconds."""
    calls, start = 0, time.process_time()
    while calls == 0 or time.process_time() - start < least:
        function()
        calls += 1
    return (time.process_time() - start) / calls


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
    parser.add_argument("parts", nargs="*", help="table, curves; both if none; the rest is kept")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--large-draws", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    parts = options.parts or ["table", "curves"]
    saved = options.out / "rsa.json"
    report: dict[str, Any] = read_json(saved) if saved.is_file() else {}
    if "table" in parts:
        report["machine"] = machine(options.repeats)
        rows = cases(options.draws, options.large_draws).items()
        report["rows"] = [measure(name, case, options.repeats) for name, case in rows]
    if "curves" in parts:
        report["curves"] = {"machine": machine(options.repeats)}
        report["curves"]["rows"] = curves(measure, options.repeats)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(saved, report)
    text = table(report) if "rows" in report else ""
    if "curves" in report:
        load = report["curves"]["machine"]["load"]
        text += f"\nCost by size (`docs/figures/rsa_cost.png`; load {load:.1f} at the start):\n\n"
        text += curve_table(report["curves"]["rows"])
    print(text)
    if options.out == HERE / "results":
        publish(text, report)


def cases(draws: int, large_draws: int) -> dict[str, Case]:
    """Return the cases of the table."""
    return {
        **distances(92, 300, 4),
        **distances(1000, 300, 4),
        **bootstraps(92, draws),
        **bootstraps(92, draws // 10, ceiling=True),
        **bootstraps(1000, large_draws),
        **alignments(1000, 300),
        **encodings(1000, 200, 50),
        **encodings(400, 1500, 50),
    }


def machine(repeats: int) -> dict[str, Any]:
    """Return on what, with what and how often it was measured."""
    return {
        "processor": processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rsatoolbox": version("rsatoolbox"),
        "scikit-learn": version("scikit-learn"),
        "load": os.getloadavg()[0],
        "repeats": repeats,
    }


def publish(text: str, report: dict[str, Any]) -> None:
    """Put the tables into the page of benchmarks, and draw the curves."""
    if "curves" in report:
        draw(report["curves"]["rows"], HERE.parent / "docs" / "figures" / "rsa_cost.png")
    readme = HERE / "README.md"
    if "<!-- rsa -->\n" in readme.read_text():
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
