"""The correspondence battery as pieces: train, observe, judge; then verdicts and figures.

Keys are ``train/<label>/<seed>``, ``observe/<H>/<label>/<seed>``,
``observe-control/<H>/<label>/<control>/<seed>`` for controls made by a transform, and
``judge/<H>/<label>``. A control that is a column of its own reuses that column's observations.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import xarray as xr

from pcsim import catalog, roster
from pcsim.experiment import Piece, Run
from pcsim.experiment_asked import Battery, slug
from pcsim.experiment_collect import (
    COLLECTED,
    describe,
    same_file,
    save_stimuli,
    saw_something,
)
from pcsim.experiment_exclusions import exclusions, write_exclusions
from pcsim.experiment_folder import replace_listed
from pcsim.hypothesis import Hypothesis, judge, not_applicable, observation
from pcsim.model import lesion
from pcsim.protocols.shown import watched
from pcsim.responses import save as save_responses
from pcsim.storage import read_json, write_json
from pcsim.verdict import adjust, read_csv, to_csv

__all__ = [
    "Battery",
    "battery_pieces",
    "collect_battery",
    "describe",
    "evidence",
    "observations",
    "slug",
]


def battery_pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return the pieces of the battery; needed controls are trained and observed as well."""
    battery = Battery.of(settings)
    pieces: dict[str, Piece] = {}
    for name, hypothesis in zip(battery.names, battery.hypotheses, strict=True):
        wanted = {one.label: one for one in (*battery.columns, *battery.rivals(hypothesis))}
        for column in wanted.values():
            for seed in battery.seeds:
                for piece in _training(column, seed, battery.scale):
                    pieces.setdefault(piece.key, piece)
                piece = _observing(name, hypothesis, column, seed, battery)
                pieces[piece.key] = piece
        for column in battery.columns:
            if not battery.unasked(hypothesis, column.label):
                transformed = list(_transforming(name, hypothesis, column, battery))
                pieces.update({piece.key: piece for piece in transformed})
            piece = _judging(name, hypothesis, column, battery)
            pieces[piece.key] = piece
    return list(pieces.values())


def _file(name: str) -> tuple[str, ...]:
    """A user's own file is a source of what is made with it."""
    return (str(Path(name).resolve()),) if name.endswith(".py") else ()


def _cost(column: roster.Variant, scale: str) -> float:
    model = catalog.load("circuits", column.circuit)
    n = getattr(model, "n_training", {}).get(scale, 0)
    return 1.0 + (0.0 if column.training == "none" else n / 1000.0)


def _training(column: roster.Variant, seed: int, scale: str) -> Iterator[Piece]:
    """Yield the training of a column; one that is lesioned afterwards shares the intact one's."""
    sources = _file(column.circuit)
    key, intact = f"train/{slug(column.label)}/{seed}", column.intact
    kwargs = {"label": column.label, "circuit": column.circuit, "seed": seed, "scale": scale}
    kwargs |= {"training": column.training, "settings": dict(column.settings)}
    if not column.lesion:
        yield Piece(
            key=key, task=train_piece, kwargs={**kwargs, "lesion": {}}, sources=sources,
            weight=_cost(column, scale),
        )  # fmt: skip
        return
    yield from _training(intact, seed, scale)
    needed = (f"train/{slug(intact.label)}/{seed}",)
    kwargs["lesion"] = dict(column.lesion)
    yield Piece(key=key, task=train_piece, kwargs=kwargs, needs=needed, sources=sources)


def train_piece(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    seed: int,
    scale: str,
    lesion: Mapping[str, Any],
    **column: Any,
) -> None:
    """Train one replica of a column, or lesion the trained one that it needs."""
    variant = roster.Variant(**column, lesion=lesion)
    if needs:
        (intact,) = needs.values()
        roster.untrained(variant)  # refuses a lesion of a field that there is not
        model = _lesioned(roster.load_model(intact / "model"), lesion)
    else:
        model = roster.train(variant, seed=seed, scale=scale)
    roster.save_model(model, folder / "model", variant.circuit)


def _lesioned(model: Any, fields: Mapping[str, Any]) -> Any:
    return lesion(model, **fields)


def _observing(
    name: str, hypothesis: Hypothesis, column: roster.Variant, seed: int, battery: Battery
) -> Piece:
    serves = any(one.label == column.label for one in battery.rivals(hypothesis))
    return Piece(
        key=f"observe/{hypothesis.id}/{slug(column.label)}/{seed}",
        task=observe_piece,
        kwargs={
            "hypothesis": name,
            "seed": seed,
            "scale": battery.protocols,
            "control": None,
            "reason": hypothesis.absent() if serves else battery.unasked(hypothesis, column.label),
            "thumbnails": seed == battery.seeds[0],
        },
        needs=(f"train/{slug(column.label)}/{seed}",),
        sources=(*_file(name), *_file(column.circuit)),
        weight=2.0,
    )


def _transforming(
    name: str, hypothesis: Hypothesis, column: roster.Variant, battery: Battery
) -> Iterator[Piece]:
    for control in hypothesis.controls:
        if control.transform is None:
            continue
        for seed in battery.seeds:
            yield Piece(
                key=_control_key(hypothesis, column.label, control.name, seed),
                task=observe_piece,
                kwargs={
                    "hypothesis": name,
                    "seed": seed,
                    "scale": battery.protocols,
                    "control": control.name,
                },
                needs=(
                    f"train/{slug(column.label)}/{seed}",
                    f"observe/{hypothesis.id}/{slug(column.label)}/{seed}",
                ),
                sources=(*_file(name), *_file(column.circuit)),
                weight=1.0 + _cost(column, battery.scale),
            )


def _control_key(hypothesis: Hypothesis, label: str, control: str, seed: int) -> str:
    return f"observe-control/{hypothesis.id}/{slug(label)}/{slug(control)}/{seed}"


def observe_piece(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    hypothesis: str,
    seed: int,
    scale: str,
    control: str | None,
    reason: str = "",
    thumbnails: bool = False,
) -> None:
    """Show a protocol to a trained model, or to what a control's transform makes of it.

    Leaves `evidence.nc` and, if the protocol gives them, `responses.nc`; or `missing.json` with
    the reason if the model lacks the signal. A transform that leaves the model as it is gives the
    evidence of the model itself, which is copied. `thumbnails` also leaves `stimuli.nc`.
    """
    claim: Hypothesis = catalog.load("analysis", hypothesis)
    trained, *own = needs.values()
    model: Any = roster.load_model(trained / "model")
    reason = reason or claim.missing(model)
    if control is not None and not reason:
        (transform,) = [c.transform for c in claim.controls if c.name == control]
        assert transform is not None
        changed = transform(model, seed)
        if changed is model:
            shutil.copyfile(own[0] / "evidence.nc", folder / "evidence.nc")
            return
        model = changed
        reason = claim.missing(model)
    if reason:
        write_json(folder / "missing.json", {"reason": reason})
        return
    with watched(model) if thumbnails else nullcontext() as seen:
        evidence, responses = observation(claim, model, seed=seed, scale=scale)
    if seen is not None:
        seen.dataset().to_netcdf(folder / "stimuli.nc", engine="h5netcdf")
    evidence.to_netcdf(folder / "evidence.nc", engine="h5netcdf")
    if responses is not None and control is None:
        save_responses(responses, folder / "responses.nc")


def _judging(name: str, hypothesis: Hypothesis, column: roster.Variant, battery: Battery) -> Piece:
    rows = observations(hypothesis, column.label, battery.seeds)
    if battery.unasked(hypothesis, column.label):
        rows = {"": rows[""]}
    return Piece(
        key=f"judge/{hypothesis.id}/{slug(column.label)}",
        task=judge_piece,
        kwargs={
            "hypothesis": name,
            "label": column.label,
            "seeds": battery.seeds,
            "reason": battery.unasked(hypothesis, column.label),
            "observations": {who: list(keys) for who, keys in rows.items()},
        },
        needs=tuple(dict.fromkeys(key for keys in rows.values() for key in keys)),
        sources=_file(name),
    )


def observations(
    hypothesis: Hypothesis, label: str, seeds: Sequence[int]
) -> dict[str, tuple[str, ...]]:
    """Return "" (the model) and each control's name -> keys of its observations by seed."""
    rows = {"": tuple(f"observe/{hypothesis.id}/{slug(label)}/{seed}" for seed in seeds)}
    for control in hypothesis.controls:
        if control.variant is None:
            keys = [_control_key(hypothesis, label, control.name, seed) for seed in seeds]
        else:
            rival = slug(roster.variant(control.variant).label)
            keys = [f"observe/{hypothesis.id}/{rival}/{seed}" for seed in seeds]
        rows[control.name] = tuple(keys)
    return rows


def judge_piece(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    hypothesis: str,
    label: str,
    seeds: Sequence[int],
    reason: str,
    observations: Mapping[str, Sequence[str]],
) -> None:
    """Judge one column under one hypothesis; leaves `verdict.csv` with one row.

    Where there was something to judge, `exclusions.json` says what was left out of it.
    """
    claim: Hypothesis = catalog.load("analysis", hypothesis)
    first = needs[observations[""][0]] / "missing.json"
    if reason:
        verdict = not_applicable(claim, label, reason)
    elif first.is_file():
        verdict = not_applicable(claim, label, read_json(first)["reason"])
    else:
        found = {who: [evidence(needs[key]) for key in keys] for who, keys in observations.items()}
        controls = {
            who: [one for one in replicas if one is not None]
            for who, replicas in found.items()
            if who and all(one is not None for one in replicas)
        }
        ours = [one for one in found[""] if one is not None]
        verdict = judge(claim, label, ours, controls, seeds=seeds)
        found_out = {"": ours, **controls}
        write_json(
            folder / "exclusions.json",
            [exclusions(claim.id, label, who, replicas) for who, replicas in found_out.items()],
        )
    to_csv([verdict], folder / "verdict.csv")


def evidence(folder: Path) -> xr.Dataset | None:
    """Return what an observation left; None if the model lacks the signal."""
    path = folder / "evidence.nc"
    return xr.load_dataset(path, engine="h5netcdf") if path.is_file() else None


def collect_battery(run: Run) -> None:
    """Leave the verdicts, what was left out, the hypotheses, stimuli, and some responses.

    `verdicts.csv`, `exclusions.csv`, `hypotheses.json`; ``stimuli/<H>.nc``, thumbnails of what the
    first column that was expected to pass saw; ``responses/``, those of the first replica. Stimuli
    and responses are listed in `collected.json`; those of an earlier run in the folder go.
    """
    battery = Battery.of(run.settings)
    judged = [
        run.piece(f"judge/{hypothesis.id}/{slug(column.label)}")
        for hypothesis in battery.hypotheses
        for column in battery.columns
    ]
    verdicts = adjust(row for one in judged for row in read_csv(one / "verdict.csv"))
    write_exclusions(judged, run.folder / "exclusions.csv")
    texts = [describe(hypothesis) for hypothesis in battery.hypotheses]
    write_json(run.folder / "hypotheses.json", texts)
    to_csv(verdicts, run.folder / "verdicts.csv")
    files = _kept_files(run, battery)
    replace_listed(run.folder, COLLECTED, files, lambda: _keep(run, files))


def _kept_files(run: Run, battery: Battery) -> dict[str, list[tuple[str, Path]]]:
    """Return file of the run -> the columns and files of pieces that it is made from."""
    files: dict[str, list[tuple[str, Path]]] = {}
    for hypothesis in battery.hypotheses:
        pieces = {
            column.label: run.piece(
                f"observe/{hypothesis.id}/{slug(column.label)}/{battery.seeds[0]}"
            )
            for column in battery.columns
        }
        for label, piece in pieces.items():
            if (piece / "responses.nc").is_file():
                name = f"responses/{hypothesis.id}_{slug(label)}.nc"
                files[name] = [(label, piece / "responses.nc")]
        hopeful = sorted(pieces, key=lambda label: hypothesis.expected(label) != "+")
        shown = [(label, pieces[label] / "stimuli.nc") for label in hopeful]
        if shown := saw_something(shown):
            files[f"stimuli/{hypothesis.id}.nc"] = shown
    return files


def _keep(run: Run, files: Mapping[str, Sequence[tuple[str, Path]]]) -> None:
    for name, ((label, source),) in files.items():
        if name.startswith("responses/"):
            same_file(source, run.folder / name)
        else:
            save_stimuli(label, source, run.folder / name)
