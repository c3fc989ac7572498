"""Tables of the README: those of `bench_pc_networks.py`, and of results that come one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from pcsim.storage import read_json, write_json, write_text

__all__ = ["best_of", "between", "into_readme", "keep", "percent", "row", "table"]

HERE = Path(__file__).resolve().parent
HAND = "torch, by hand"
USUAL = "256 wide, 4 weight matrices (depth), batch 64, T = 20 but for what varies"
INTRODUCTION = """`python benchmarks/bench_pc_networks.py` measures predictive-coding networks
on one core, beside loops written by hand in torch and numpy, beside one that differentiates the
energy at every step, as generic libraries do, and beside peers in environments of their own
(`--peer pcx=PYTHON --peer fabricpc=PYTHON --peer ngclearn=PYTHON`). Equal energies are checked
first. It writes `results/pc_networks.json`, `docs/figures/pc_cost.png` and what follows."""


def percent(share: float | None) -> str:
    """Return a share as percent; None is a run that diverged."""
    return "diverged" if share is None else f"{100 * share:.1f}"


def best_of(tried: dict[float, float | None]) -> float:
    """Return the rate of the largest share; of runs that all diverged, the first."""
    return max(tried, key=lambda rate: -1.0 if (share := tried[rate]) is None else share)


def fixed(part: dict[str, Any], title: str) -> list[str]:
    """Return the table of the fixed steps."""
    singly = part.get("singly", {})
    head = ["way", "median ms", "best ms", "of the clock", "relative to torch by hand"]
    head += ["median ms, called in turns"] if singly else []
    lines = [f"{title}:", "", row(head), row(["---"] * len(head))]
    own = part["ways"][HAND]["median_ms"]
    for name, ms in by_time(part["ways"]):
        cells = [name, *(f"{ms[k]:.3g}" for k in ("median_ms", "best_ms", "best_wall_ms"))]
        cells.append(f"{ms['median_ms'] / own:.2f}")
        lines.append(row(cells + ([f"{singly[name]['median_ms']:.3g}"] if singly else [])))
    first = ", ".join(f"{name} {s:.2g} s" for name, s in part["first_call_s"].items())
    off = max(part["differences"].values())
    return [*lines, "", f"Energies agree to {off:.0e} (relative). First call: {first}.", ""]


def near(part: dict[str, Any]) -> list[str]:
    """Return the table of the ways to equilibrium."""
    lines = [
        "The same network to within 1 % of its equilibrium energy; rates were chosen on other "
        "weights and data, and no weights are changed but by peers, whose update is one call and "
        "whose steps are those of the loop by hand, above the lowest energy of their own "
        "convention:",
        "",
        row(["way", "steps", "above the lowest energy", "median ms", "times faster"]),
        row(["---"] * 5),
    ]
    slow = max(ms["median_ms"] for name, ms in part["ways"].items() if name.startswith("plain"))
    for name, ms in by_time(part["ways"]):
        steps = str(part["steps"].get(name, ""))
        left = f"{100 * part['left'][name]:.2f} %" if name in part["left"] else ""
        cells = [name, steps, left, f"{ms['median_ms']:.3g}", f"{slow / ms['median_ms']:.1f}"]
        lines.append(row(cells))
    return lines


def costs(found: dict[str, Any]) -> list[str]:
    """Return the cost curves and the memory."""
    lines = [f"Cost of one update, {USUAL} (`docs/figures/pc_cost.png`), milliseconds:", ""]
    ways = list(found["curves"][0]["ms"])
    lines += [row(["varied", *ways]), row(["---"] * (1 + len(ways)))]
    for what in ("depth", "width", "T", "batch"):
        part = [r for r in found["curves"] if r["varied"] == what]
        cells = [", ".join(f"{r['value']}: {r['ms'][way]:.3g}" for r in part) for way in ways]
        lines.append(row([what, *cells]))
    kept = ", ".join(f"{way} {kib:.0f}" for way, kib in found["memory_kib"].items())
    lines += ["", f"Peak memory of one update a sample, KiB: {kept}.", ""]
    return lines + memories(found["memory_curves"]) if "memory_curves" in found else lines


def memories(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of the peak memory against what varies."""
    ways = list(rows[0]["kib"])
    lines = [f"Peak memory of one update a sample, {USUAL}, KiB:".replace("batch 64, ", ""), ""]
    lines += [row(["varied", *ways]), row(["---"] * (1 + len(ways)))]
    for what in dict.fromkeys(r["varied"] for r in rows):
        part = [r for r in rows if r["varied"] == what]
        cells = [", ".join(f"{r['value']}: {r['kib'][way]:.1f}" for r in part) for way in ways]
        lines.append(row([what, *cells]))
    return [*lines, ""]


def by_time(ways: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the ways, fastest first."""
    return sorted(ways.items(), key=lambda way: way[1]["median_ms"])


def row(cells: list[str]) -> str:
    """Return one row of a table."""
    return "| " + " | ".join(cells) + " |"


def table(found: dict[str, Any]) -> str:
    """Return all tables."""
    lines = fixed(
        found["workload"],
        "784-256-256-256-10, tanh, batch 256, T = 20, one update of the weights",
    )
    bound = found["bound_ms"]
    best = found["workload"]["ways"]["pcsim"]["best_ms"]
    lines += [
        f"The products of this table need {found['workload']['flop'] / 1e9:.2f} GFLOP, which "
        f"at the rate of 256 x 256 x 256 products measured beside ({found['gemm'] / 1e9:.0f} "
        f"GFLOP/s) take {bound:.1f} ms: {100 * bound / best:.0f} % of that floor is reached.",
        "",
    ]
    lines += fixed(
        found["column"], "16-32-32-32-8, tanh, batch 1, T = 20, one update of the weights"
    )
    lines += near(found["equilibrium"])
    lines += ["", "Steps to 1 % of the way to equilibrium, width 64, rates chosen likewise:", ""]
    lines += [row(["depth", "activities", "errors"]), row(["---"] * 3)]
    lines += [row([str(r[k]) for k in ("depth", "plain", "errors")]) for r in found["depths"]]
    lines += ["", *costs(found), *notes(found)]
    return "\n".join(lines)


def notes(found: dict[str, Any]) -> list[str]:
    """Return what must be known to read the tables."""
    peers = [name for name in found["workload"]["ways"] if name[-1].isdigit()]
    if peers:
        says = f"Peers: {', '.join(peers)}, each in its own environment, taking turns with the rest"
        says += ". pcx averages the energy over the batch (its rate is multiplied by the batch) "
        says += "and predicts W tanh(z) + b as here; FabricPC predicts tanh(W z + b), and is held "
        says += "to the energy of that network, whose lowest energy is another."
    else:
        says = "Peers were skipped: none was given."
    machine = (
        f"One core of {found['machine']}, torch {found['torch']}; load average "
        f"{found['load']:.1f} at the start. Times are of the processor but where the clock is "
        "named, because other work ran on the machine; ratios are what matters."
    )
    later = [f"{part} (load {load:.1f})" for part, load in found.get("later", {}).items()]
    if later:
        machine += f" Timed again later: {', '.join(later)}."
    return [says, "", machine, ""]


def keep(
    name: str,
    result: dict[str, Any],
    keys: Collection[str],
    tabulate: Callable[[list[dict[str, Any]]], str],
) -> None:
    """Put a result into ``results/<name>.json``, and the table of all there into the README.

    A result that is equal in `keys` makes room for it; all others stay.
    """
    path = HERE / "results" / f"{name}.json"
    found: list[dict[str, Any]] = read_json(path) if path.exists() else []
    found = [old for old in found if any(old[key] != result[key] for key in keys)] + [result]
    write_json(path, found)
    between(HERE / "README.md", name, tabulate(found))


def into_readme(path: Path, text: str) -> None:
    """Put the tables between their marks, or at the end."""
    if "<!-- pc_networks -->" not in path.read_text():
        whole = path.read_text().rstrip()
        write_text(
            path, f"{whole}\n\n{INTRODUCTION}\n\n<!-- pc_networks -->\n<!-- /pc_networks -->\n"
        )
    between(path, "pc_networks", text)


def between(path: Path, mark: str, text: str) -> None:
    """Put a text between the marks of its name."""
    head, foot = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, rest = path.read_text().split(head)
    write_text(path, f"{before}{head}\n{text}{foot}{rest.split(foot)[1]}")
