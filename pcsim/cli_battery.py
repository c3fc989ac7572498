"""``pcsim test``: hypotheses against models through the pieces of the battery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pcsim import catalog
from pcsim.experiment import Experiment, Run, run_experiment
from pcsim.experiment_battery import battery_pieces, collect_battery
from pcsim.messages import unknown_name
from pcsim.storage import cache_folder
from pcsim.verdict import Verdict, read_csv

__all__ = ["hypothesis_name", "put_to_test", "table"]

REPLICAS = {"quick": 3, "full": 5}
HEAD: tuple[str, ...] = (
    "hypothesis",
    "model",
    "verdict",
    "effect [95 %]",
    "strongest control",
    "p (Holm)",
    "n of total",
    "expected",
)


def hypothesis_name(spec: str) -> str:
    """Return the catalog name, or the path, of what a user calls a hypothesis.

    Raises
    ------
    ValueError
        If there is none of that name, id or path.
    """
    names = catalog.names("analysis")
    if spec in names or spec.endswith(".py"):
        return spec
    by_id = {catalog.load("analysis", name).id: name for name in names}
    if spec in by_id:
        return by_id[spec]
    raise unknown_name("test", "hypothesis", spec, [*names, *by_id])


def put_to_test(
    hypotheses: Sequence[str],
    models: Sequence[str],
    *,
    scale: str,
    seeds: int | None,
    out: Path | None,
    workers: int,
    scheduler: str | None = None,
) -> str:
    """Test and return the table of verdicts as text."""
    settings = {
        "hypotheses": tuple(hypothesis_name(spec) for spec in hypotheses),
        "models": tuple(models),
    }
    verdicts: list[Verdict] = []

    def collect(run: Run) -> None:
        # Read while the folder is held: the next test may write its own table at any time.
        collect_battery(run)
        verdicts.extend(read_csv(run.folder / "verdicts.csv"))

    experiment = Experiment(
        name="test",
        question="Which of these hypotheses do these models pass?",
        scales={name: {**settings, "seeds": n} for name, n in REPLICAS.items()},
        pieces=battery_pieces,
        collect=collect,
        figures=lambda run: {},
    )
    folder = out if out is not None else cache_folder() / "test"
    run_experiment(
        experiment, scale=scale, seeds=seeds, out=folder, workers=workers, scheduler=scheduler
    )
    return table(verdicts)


def table(verdicts: Sequence[Verdict]) -> str:
    """Return verdicts as lines of text, each with the numbers that decided and the reason.

    Examples
    --------
    >>> from pcsim.verdict import Outcome
    >>> one = Verdict(hypothesis="H10", version=1, family="V1", model="LN",
    ...               verdict=Outcome.NA, reason="It has no error units.")
    >>> print(table([one]))
    hypothesis  model  verdict  effect [95 %]  strongest control  p (Holm)  n of total  expected
    H10         LN     N/A      -              -                  -         -           not stated
                It has no error units.
    """
    rows = [HEAD, *(_row(one) for one in verdicts)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    text = [lines[0].rstrip()]
    for line, one in zip(lines[1:], verdicts, strict=True):
        text += [line.rstrip(), " " * (widths[0] + 2) + one.reason]
    return "\n".join(text)


def _row(one: Verdict) -> tuple[str, ...]:
    control = _interval(one.control_effect, one.control_low, one.control_high)
    return (
        one.hypothesis,
        one.model,
        str(one.verdict),
        _interval(one.effect, one.low, one.high),
        f"{one.control} {control}" if one.control else "-",
        "-" if one.p_holm is None else f"{one.p_holm:.2g}",
        f"{one.n_included} of {one.n_total}, {one.n_replicas} replicas" if one.n_total else "-",
        one.expectation or "not stated",
    )


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "-"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"
