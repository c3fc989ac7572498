"""How often is a verdict wrong, and how many replicas suffice to find what is there?

For every hypothesis of the catalog evidence is simulated in which the truth is known, with its own
variables, statistic, further falsifiers, controls, rope and reference, and judged by the
battery's own rule. Absent: the effect is at its null. Same: it is there and the controls show as
much. Wrong: it is on the other side. Requirement k: all is there but one falsifier lies at its
null. Present: the published effect, for power. `rates.csv` counts verdicts for each situation,
`table.csv` pools them, `needed.csv` says how many replicas suffice.

Controls are without noise and show nothing, falsifiers are met without noise, unless they are what
is tested: nothing saves a verdict from being wrong. Where a hypothesis says that its replicas
share units, `shared.csv` counts false claims on evidence in which they do, by the rule that knows
of it (3) and by the one that does not (2); elsewhere both are one. `--set runs=FOLDER` adds the
scatter of a finished battery (`components.csv`) and the replicas that it asks for.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim import catalog
from pcsim.experiment import Experiment, Piece, Run
from pcsim.hypothesis_claim import Hypothesis
from pcsim.stats_binomial import clopper_pearson, replicas_needed, student_power
from pcsim.storage import write_text
from pcsim.verdict import ALPHA, Outcome, Verdict, adjust
from pcsim.verdict_components import components
from pcsim.verdict_effects import wider_interval
from pcsim.verdict_nulls import Scene, Situation, situations
from pcsim.verdict_scene import NOISES, effect_size
from pcsim.verdict_simulation import first_rule, judge_many

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

LEVEL = ALPHA / 2
"""What a 95 % interval leaves on the predicted side."""
OUTCOMES = tuple(one.value for one in Outcome)
CLAIMS = (Outcome.SUPPORTED.value, Outcome.QUALITATIVE.value)
RULES = {"1": first_rule, "2": wider_interval}
WHERE = ("kind", "n", "units", "share", "noise", "size")
SYMMETRIC = ("normal", "heavy")
SPLITS = ((0.0, 1.0), (0.3, 0.3), (0.5, 0.5), (1.0, 0.0))
"""Shares of variance between replicas and in shared units; what is left is of units in replicas."""
SHARED = ("normal", "heavy", "skew away")
POWER = 0.8


def cells(kinds: Sequence[str], plan: Mapping[str, Any]) -> list[Situation]:
    """Return the situations that are simulated for a hypothesis."""
    found = []
    for n in plan["replicas"]:
        for share in plan["shares"]:
            noises = NOISES if share == 1.0 else ("normal",)
            found += [Situation(kind="absent", n=n, share=share, noise=one) for one in noises]
        found.append(Situation(kind="absent", n=n, share=0.3, units=200))
        found += [Situation(kind="same", n=n, size=size) for size in (2.0, 5.0)]
        found += [Situation(kind="wrong", n=n)]
        found += [Situation(kind="present", n=n, size=size, share=1.0) for size in plan["sizes"]]
        found += [Situation(kind=one, n=n, share=1.0) for one in kinds if one[:3] == "req"]
    return [one for one in found if one.kind in kinds]


def shared_cells(plan: Mapping[str, Any]) -> list[Situation]:
    """Return the situations in which all replicas share their units; the effect is absent."""
    return [
        Situation(kind="absent", n=n, units=units, share=share, shared=common, noise=noise)
        for n in plan["replicas"]
        for units in plan["shared_units"]
        for share, common in SPLITS
        for noise in (SHARED if common == 1.0 else SHARED[:1])
    ]


def simulate(
    folder: Path, needs: Mapping[str, Path], *, hypothesis: str, seed: int, plan: Mapping[str, Any]
) -> None:
    """Judge simulated evidence of one hypothesis in all situations; keep verdicts and p."""
    claim = replace(catalog.load("analysis", hypothesis), shared=())
    scene, rows, kept = Scene(claim), [], []
    for at in cells(situations(claim), plan):
        rng = np.random.default_rng([seed, zlib.crc32(f"{claim.id} {at}".encode())])
        ours, theirs = scene.evidence(at, plan["n_sets"], rng)
        first = at.kind in ("absent", "same") and at.noise == "normal"
        rules = RULES if first else {"2": wider_interval}
        # Holm asks for small p, and B draws cannot show less than 2 / (B + 1).
        draws = plan["family_draws"] if in_family(at) else plan["draws"]
        judged = judge_many(claim, ours, theirs, draws=draws, rules=rules)
        for rule, one in judged.items():
            rows.append({**asdict(at), "rule": rule})
            kept.append(([OUTCOMES.index(str(outcome)) for outcome in one.outcomes], one.p))
    keep(folder, claim, rows, kept)


def simulate_shared(
    folder: Path, needs: Mapping[str, Path], *, hypothesis: str, seed: int, plan: Mapping[str, Any]
) -> None:
    """Judge evidence with shared units by the rule that knows of it and by the one before."""
    claim = catalog.load("analysis", hypothesis)
    judges = {"2": replace(claim, shared=()), "3": claim}
    scene, rows, kept = Scene(claim), [], []
    for at in shared_cells(plan):
        code = zlib.crc32(f"{claim.id} {at} {at.shared}".encode())
        ours, theirs = scene.evidence(at, plan["shared_sets"], np.random.default_rng([seed, code]))
        for rule, one in judges.items():
            judged = judge_many(one, ours, theirs, draws=plan["draws"])["wider"]
            rows.append({**asdict(at), "rule": rule})
            kept.append(([OUTCOMES.index(str(outcome)) for outcome in judged.outcomes], judged.p))
    keep(folder, claim, rows, kept)


def keep(
    folder: Path,
    claim: Hypothesis,
    rows: Sequence[Mapping[str, Any]],
    kept: Sequence[tuple[list[int], Any]],
) -> None:
    """Save outcome and p of every data set of every situation."""
    places = {name: ("cell", [row[name] for row in rows]) for name in (*WHERE, "shared", "rule")}
    xr.Dataset(
        {
            "outcome": (("cell", "set"), np.array([one[0] for one in kept], dtype=np.int8)),
            "p": (("cell", "set"), np.array([one[1] for one in kept])),
        },
        coords=places,
        attrs={"id": claim.id, "family": claim.family, "effect_size": effect_size(claim)},
    ).to_netcdf(folder / "result.nc", engine="h5netcdf")


def in_family(at: Situation) -> bool:
    """Whether family-wise rates are taken from this situation."""
    found = (at.kind, at.share, at.size, at.noise, at.units)
    return found in (("absent", 1.0, 2.0, "normal", 20), ("same", 0.7, 2.0, "normal", 20))


def names(settings: Mapping[str, Any]) -> list[str]:
    """Return the hypotheses: all that there are, or those that are named."""
    chosen = settings["hypotheses"]
    return catalog.names("analysis") if tuple(chosen) == ("all",) else list(chosen)


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return a piece for each hypothesis and seed, and one more if its replicas share units."""
    wanted = ("replicas", "draws", "family_draws", "shares", "sizes", "n_sets")
    plan = {name: settings[name] for name in wanted}
    crossed = {name: settings[name] for name in (*wanted[:2], "shared_units", "shared_sets")}
    found = []
    for name in names(settings):
        tasks = [("simulate", simulate, plan)]
        if shares_units(name):
            tasks.append(("shared", simulate_shared, crossed))
        found += [
            Piece(
                key=f"{folder}/{Path(name).stem}/{seed}", task=task,
                kwargs={"hypothesis": name, "seed": seed, "plan": settled},
                sources=(str(Path(name).resolve()),) if name.endswith(".py") else (),
            )
            for folder, task, settled in tasks
            for seed in settings["seeds"]
        ]  # fmt: skip
    return found


def shares_units(name: str) -> bool:
    """Whether the replicas of a hypothesis share their units."""
    return "unit" in catalog.load("analysis", name).shared


def gather(run: Run, chosen: Iterable[str], folder: str) -> list[xr.Dataset]:
    """Return what was simulated, all seeds of a hypothesis together, by id."""
    found = []
    for name in chosen:
        parts = []
        for seed in run.settings["seeds"]:
            path = run.piece(f"{folder}/{Path(name).stem}/{seed}") / "result.nc"
            with xr.open_dataset(path, engine="h5netcdf") as one:
                parts.append(one.load())
        found.append(xr.concat(parts, "set", combine_attrs="override"))
    return sorted(found, key=lambda one: str(one.attrs["id"]))


def collect(run: Run) -> None:
    """Write rates of every situation, pooled and family-wise rates, power, replicas needed."""
    every = names(run.settings)
    simulated = gather(run, every, "simulate")
    rates = [row for one in simulated for row in rate_rows(one)]
    write_rows(run.folder / "rates.csv", rates)
    pooled = [*pool(rates, (*WHERE, "rule"), "all"), *pool_hypotheses(rates)]
    write_rows(run.folder / "table.csv", [*pooled, *family_rows(simulated)])
    write_rows(run.folder / "power.csv", power_rows(simulated))
    crossed = gather(run, filter(shares_units, every), "shared")
    if crossed:
        where = (*WHERE, "shared", "rule")
        rates = [row for one in crossed for row in rate_rows(one, where)]
        write_rows(run.folder / "shared.csv", [*pool(rates, where, "all"), *rates])
    saved = [row for folder in run.settings["runs"] for row in components(folder)]
    if saved:
        write_rows(run.folder / "components.csv", saved)
    write_rows(run.folder / "needed.csv", needed_rows(simulated, saved))


def rate_rows(data: xr.Dataset, where: Sequence[str] = (*WHERE, "rule")) -> list[dict[str, Any]]:
    """Return the counts of a hypothesis; a claim that its own p does not bear out is open."""
    outcome = data["outcome"].to_numpy()
    claims = np.isin(outcome, [OUTCOMES.index(o) for o in (*CLAIMS, "NON-SPECIFIC")])
    inconclusive = OUTCOMES.index("INCONCLUSIVE")
    outcome = np.where(claims & ~(data["p"].to_numpy() < ALPHA), inconclusive, outcome)
    rows = []
    for k in range(data.sizes["cell"]):
        counts = np.bincount(outcome[k], minlength=len(OUTCOMES))
        row = {"scope": data.attrs["id"], **{w: data[w].values[k] for w in where}}
        rows.append(with_rates(row, dict(zip(OUTCOMES, counts.tolist(), strict=True))))
    return rows


def with_rates(row: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """Add counts, and the rate of SUPPORTED, and of SUPPORTED or QUALITATIVE, with its interval."""
    total = sum(counts.values())
    found: dict[str, Any] = {**row, "n_sets": total, **counts}
    for name, kinds in (("supported", CLAIMS[:1]), ("claimed", CLAIMS)):
        hits = sum(counts[one] for one in kinds)
        low, high = clopper_pearson(hits, total)
        found |= {name: hits / total, f"{name}_low": float(low), f"{name}_high": float(high)}
    if row["kind"] != "present":
        found["holds"] = "yes" if found["claimed_low"] <= LEVEL else "no"
    return found


def pool(rows: Iterable[Mapping[str, Any]], by: Sequence[str], scope: str) -> list[dict[str, Any]]:
    """Return rows added up over everything but `by`."""
    sums: dict[tuple[Any, ...], dict[str, int]] = {}
    for row in rows:
        kind = str(row["kind"]).split()[0]
        key = tuple(kind if name == "kind" else row[name] for name in by)
        total = sums.setdefault(key, dict.fromkeys(OUTCOMES, 0))
        for one in OUTCOMES:
            total[one] += row[one]
    blank = dict.fromkeys((*WHERE, "rule"), "")
    return [
        with_rates({"scope": scope, **blank, **dict(zip(by, key, strict=True))}, counts)
        for key, counts in sums.items()
    ]


def pool_hypotheses(rates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each hypothesis its nulls under symmetric noise, by kind and replicas, rule 2."""
    found = []
    for scope in dict.fromkeys(row["scope"] for row in rates):
        own = [r for r in rates if r["scope"] == scope and r["rule"] == "2"]
        own = [r for r in own if r["kind"] != "present" and r["noise"] in SYMMETRIC]
        found += pool(own, ("kind", "n", "rule"), scope)
    return found


def family_rows(simulated: Sequence[xr.Dataset]) -> list[dict[str, Any]]:
    """Return how often a family has any claim after Holm, all of its hypotheses being false.

    Claims are counted as SUPPORTED if one of them is.
    """
    rows = []
    wanted = [("absent", 1.0, 2.0), ("same", 0.7, 2.0)]
    for family in sorted({str(one.attrs["family"]) for one in simulated}):
        members = [one for one in simulated if one.attrs["family"] == family]
        for kind, share, size in wanted:
            for n in sorted(set(members[0]["n"].values.tolist())):
                for rule in RULES:
                    at = dict(kind=kind, n=n, share=share, size=size, noise="normal", rule=rule)
                    at["units"] = 20
                    counts = family_counts(members, at)
                    if sum(counts.values()):
                        scope = f"family {family} ({len(members)})"
                        rows.append(with_rates({"scope": scope, **at}, counts))
    return rows


def family_counts(members: Sequence[xr.Dataset], at: Mapping[str, Any]) -> dict[str, int]:
    """Return how many families end with which highest claim; the rest count as inconclusive."""
    tables = []
    for one in members:
        found = np.all([one[name].values == value for name, value in at.items()], axis=0)
        if found.any():
            cell = one.isel(cell=int(np.flatnonzero(found)[0]))
            tables.append((one.attrs["id"], cell["outcome"].values, cell["p"].values))
    counts = dict.fromkeys(OUTCOMES, 0)
    for k in range(len(tables[0][1]) if tables else 0):
        verdicts = adjust(
            Verdict(
                hypothesis=name, version=1, family="one", model="one",
                verdict=Outcome(OUTCOMES[outcome[k]]), p=float(p[k]),
            )
            for name, outcome, p in tables
        )  # fmt: skip
        claimed = {str(one.verdict) for one in verdicts}
        best = next((one for one in CLAIMS if one in claimed), "INCONCLUSIVE")
        counts[best] += 1
    return counts


def power_rows(simulated: Sequence[xr.Dataset]) -> list[dict[str, Any]]:
    """Return how often the published effect is claimed; Student's power alone and after Holm."""
    rows = []
    sizes = {f: sum(one.attrs["family"] == f for one in simulated) for f in families(simulated)}
    for one in simulated:
        m = sizes[one.attrs["family"]]
        here = one.isel(cell=np.flatnonzero(one["kind"].values == "present"))
        claims = np.isin(here["outcome"].values, [OUTCOMES.index(o) for o in CLAIMS])
        supported = here["outcome"].values == OUTCOMES.index("SUPPORTED")
        for k in range(here.sizes["cell"]):
            p, n, size = (here[name].values[k] for name in ("p", "n", "size"))
            rows.append(
                {
                    "hypothesis": one.attrs["id"], "family_size": m, "n": n, "size": size,
                    "n_sets": len(p), "claimed": float((claims[k] & (p < ALPHA)).mean()),
                    "supported": float((supported[k] & (p < ALPHA)).mean()),
                    "student": student_power(float(size), int(n)),
                    "student_holm": student_power(float(size), int(n), alpha=ALPHA / m),
                }
            )  # fmt: skip
    return rows


def families(simulated: Sequence[xr.Dataset]) -> list[str]:
    """Return the families there are."""
    return sorted({str(one.attrs["family"]) for one in simulated})


def needed_rows(
    simulated: Sequence[xr.Dataset], saved: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return replicas for 80 % power: for round effects, and for the published ones if known."""
    count = {f: sum(one.attrs["family"] == f for one in simulated) for f in families(simulated)}
    largest = max(count.values())
    wanted: list[tuple[str, float | str, float, int]] = [
        ("any", "", size, largest) for size in (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
    ]
    for one in simulated:
        own = [r for r in saved if r["hypothesis"] == one.attrs["id"] and r["spread"] > 1e-9]
        if own:
            spread = float(np.median([row["spread"] for row in own]))
            size = float(one.attrs["effect_size"]) / spread
            wanted.append((one.attrs["id"], spread, size, count[one.attrs["family"]]))
    return [
        {
            "hypothesis": name, "spread": spread, "size": size, "family_size": m,
            "n_alone": replicas_needed(size, power=POWER),
            "n_holm": replicas_needed(size, power=POWER, alpha=ALPHA / m),
            "n_difference": replicas_needed(size / 2**0.5, power=POWER),
        }
        for name, spread, size, m in wanted
    ]  # fmt: skip


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, floats with 4 digits; columns are those of all rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    write_text(path, buffer.getvalue())


def figures(run: Run) -> dict[str, Figure]:
    """Draw rates under the nulls and power, from the saved tables."""
    from pcsim.plots_calibration import calibration_figure

    return {"figure": calibration_figure(run.folder, LEVEL)}


QUICK = {
    "seeds": 1, "hypotheses": ("all",), "replicas": (3, 5, 10), "shares": (0.0, 0.3, 0.7, 1.0),
    "sizes": (1.0, 2.0, 5.0), "n_sets": 200, "draws": 200,
    "family_draws": 1000, "runs": (), "shared_units": (3, 40), "shared_sets": 2000,
}  # fmt: skip
FULL = {
    **QUICK, "seeds": 5, "replicas": (3, 5, 10, 20), "sizes": (1.0, 1.5, 2.0, 3.0, 5.0, 10.0),
    "n_sets": 400, "draws": 1000, "shared_sets": 4000,
}  # fmt: skip

EXPERIMENT = Experiment(
    name="verdict_calibration",
    question="How often is a verdict wrong, and how many replicas suffice?",
    scales={"quick": QUICK, "full": FULL},
    pieces=pieces,
    collect=collect,
    figures=figures,
)
