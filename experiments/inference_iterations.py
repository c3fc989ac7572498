"""Do few inference iterations suffice only if inference is amortized? (battery, H32)

On one trained generative model of MNIST: gradient rules, each at the step that suits it best (one
of them damped: its step is halved, image by image, until the free energy falls), a trained
iterative network, a direct network and an untrained one, from the prior (cold) and from the
posterior of the frame before (warm) of slowly turning and drifting images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim import data
from pcsim.experiment import Experiment, Piece, Run
from pcsim.storage import atomic_path, read_json, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

RULES = ("gradient", "momentum", "preconditioned", "damped")
"""Of `pcsim.deep.race.GRIDS`; each has a step for each start, chosen on validation images."""
RIVALS = ("preconditioned", "damped")
"""Rules without learning that refute the claim if they are fast enough."""
KINDS = ("direct", "iterative")
LANES = (*RULES, "iterative", "direct", "untrained")
STARTS = ("cold", "warm")
LIMIT, RIVAL_LIMIT, LEVEL = 8.0, 6.0, 0.95
"""Iterations of the claim, of the rival that refutes it, and the share that counts: H32."""


def train_model(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    arm: Mapping[str, Any],
    training: Mapping[str, Any],
    n_train: int,
) -> None:
    """Train a generative model together with one kind of inference."""
    from pcsim.deep.arm_training import train_part
    from pcsim.deep.arms import Arm, examples
    from pcsim.deep.training import TrainingSettings
    from pcsim.deep.training_step import binarised

    images = examples(data.load("mnist")["image"].to_numpy()[:n_train], scale=255.0)
    settings = TrainingSettings(**training)
    pair = Arm(**arm).build(784, settings.seed)
    train_part(folder, {}, pair, images, settings, prepare=binarised)


def race(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    arms: Mapping[str, Mapping[str, Any]],
    trained_with: str,
    training: Mapping[str, Any],
    n_train: int,
    sizes: Mapping[str, int],
) -> None:
    """Train the other network on the model as it is; tune the rules; run all from both starts."""
    from pcsim.deep.arm_training import restored, train_network
    from pcsim.deep.arms import Arm, examples
    from pcsim.deep.frames import moving
    from pcsim.deep.race import prepared, tuned
    from pcsim.deep.training import TrainingSettings
    from pcsim.deep.training_step import binarised

    (trained,) = needs.values()
    model, first = restored(arms[trained_with], 784, trained)
    other = next(kind for kind in KINDS if kind != trained_with)
    settings = TrainingSettings(**training)
    images = data.load("mnist")["image"].to_numpy()
    rows = examples(images[:n_train], scale=255.0)
    second = train_network(model, arms[other], rows, settings, prepare=binarised)
    lanes: dict[str, Any] = {trained_with: first, other: second}
    lanes["untrained"] = Arm(**arms["iterative"]).build(784, settings.seed + 1000)[1]
    validation = images[n_train : n_train + sizes["n_validation"]]
    x, starts, best = prepared(model, moving(validation, 2, seed=1), n_long=sizes["n_long"])
    effort: Any = {name: sizes[name] for name in ("n_iterations", "n_samples")}
    steps, search = tuned(model, x, starts, best, level=LEVEL, **effort)
    test = data.load("mnist", split="test")["image"].to_numpy()
    order = np.random.default_rng(0).permutation(len(test))[: sizes["n_test"]]
    result = measured(model, lanes, steps, moving(test[order], sizes["n_frames"], seed=2), sizes)
    result.to_netcdf(folder / "result.nc", engine="h5netcdf")
    write_json(folder / "search.json", {"steps": steps, "search": search})


def measured(
    model: Any,
    lanes: Mapping[str, Any],
    steps: Mapping[str, float],
    frames: Any,
    sizes: Mapping[str, int],
) -> xr.Dataset:
    """Run every lane from both starts on the test frames; return free energies, nats."""
    from pcsim.deep.inference import infer
    from pcsim.deep.race import prepared, raced
    from pcsim.deep.training_step import generator_for

    def guess(x: Any) -> Any:
        return infer(lanes["direct"], model, x, generator=generator_for("cpu", 0, 33)).q

    x, starts, best = prepared(model, frames, n_long=sizes["n_long"], guess=guess)
    shape = (sizes["n_iterations"] + 1, len(frames) - 1, frames.shape[1])
    effort = {name: sizes[name] for name in ("n_iterations", "n_samples")}
    ordered = {name: lanes[name] for name in LANES if name in lanes}
    curves = raced(model, x, starts, ordered, steps, **effort).reshape(
        len(LANES), len(STARTS), *shape
    )
    return xr.Dataset(
        {
            "free_energy": (("lane", "start", "iteration", "frame", "image"), curves),
            "best": (("frame", "image"), best.reshape(shape[1:])),
        },
        coords={"lane": list(LANES), "start": list(STARTS)},
    )


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return a model and a race on it for each seed and each inference a model is trained with."""
    shared = {"n_z": settings["n_z"], "widths": settings["widths"]}
    arms = {
        "direct": {"inference": "direct", **shared},
        "iterative": {"n_iterations": settings["n_trained"], **shared},
    }
    names = ("n_validation", "n_test", "n_frames", "n_iterations", "n_samples", "n_long")
    sizes = {name: settings[name] for name in names}
    out = []
    for kind in settings["trained_with"]:
        for seed in settings["seeds"]:
            training = {"seed": seed, **settings["training"]}
            common = {"training": training, "n_train": settings["n_train"]}
            kwargs = {"arm": arms[kind], **common}
            out.append(Piece(key=f"model/{kind}/{seed}", task=train_model, kwargs=kwargs))
            kwargs = {"arms": arms, "trained_with": kind, "sizes": sizes, **common}
            need = (f"model/{kind}/{seed}",)
            out.append(Piece(key=f"race/{kind}/{seed}", task=race, kwargs=kwargs, needs=need))
    return out


def collect(run: Run) -> None:
    """Gather the races; write the table of gaps and iterations, the search and the verdicts."""
    rows = [
        "trained_with,start,inference,steps,g_1,g_8,g_8_low,g_8_high,k95,k95_low,k95_high,"
        "nats_left_8,nats_to_close,n_seeds,reference"
    ]
    verdicts = ["trained_with,start,verdict,reason"]
    search: dict[str, Any] = {}
    results = []
    for kind in run.settings["trained_with"]:
        parts = []
        for seed in run.settings["seeds"]:
            piece = run.piece(f"race/{kind}/{seed}")
            with xr.open_dataset(piece / "result.nc", engine="h5netcdf") as one:
                parts.append(one.load())
            search[f"{kind}/{seed}"] = read_json(piece / "search.json")
        whole = xr.concat(parts, xr.Variable("replica", list(run.settings["seeds"])))
        steps = [search[f"{kind}/{seed}"]["steps"] for seed in run.settings["seeds"]]
        results.append(summary(whole, steps))
        found = results[-1]
        for start in STARTS:
            rows += [f"{kind},{start},{line}" for line in table_rows(found, start, len(parts))]
            verdicts.append(f"{kind},{start},{','.join(verdict(found, start, len(parts)))}")
    write_text(run.folder / "table.csv", "\n".join(rows) + "\n")
    write_text(run.folder / "verdicts.csv", "\n".join(verdicts) + "\n")
    write_json(run.folder / "search.json", search)
    names = xr.Variable("trained_with", list(run.settings["trained_with"]))
    with atomic_path(run.folder / "summary.nc") as part:
        xr.concat(results, names).to_netcdf(part, engine="h5netcdf")


def summary(result: xr.Dataset, steps: list[dict[str, float]]) -> xr.Dataset:
    """Return the gap closed and k95 of each lane and start, with intervals."""
    from pcsim.deep.convergence import closing

    energy = result["free_energy"].mean("frame").transpose("replica", ..., "image").to_numpy()
    best = result["best"].mean("frame").transpose("replica", "image").to_numpy()
    closed = closing(energy, best, level=LEVEL)
    chosen = [
        [" ".join(f"{one[f'{n} {s}']:g}" if n in RULES else "-" for one in steps) for s in STARTS]
        for n in LANES
    ]
    left = (energy - best[:, None, None, None]).mean((0, -1))
    place = ("lane", "start")
    return xr.Dataset(
        {
            "share": ((*place, "iteration"), closed.share),
            "share_ends": (("end", *place, "iteration"), closed.share_ends),
            "k95": (place, closed.first),
            "k95_ends": (("end", *place), closed.first_ends),
            "nats_left": ((*place, "iteration"), left),
            "steps": (place, chosen),
        },
        coords={"lane": list(LANES), "start": list(STARTS)},
    )


def table_rows(found: xr.Dataset, start: str, n_seeds: int) -> list[str]:
    """Return a line of the table for each lane."""
    rows = []
    for name in LANES:
        one = found.sel(lane=name, start=start)
        last = one.sizes["iteration"] - 1
        at = min(int(LIMIT), last)
        ends = one["share_ends"].isel(iteration=at).to_numpy()
        shares = (float(one["share"][1]), float(one["share"][at]), *ends)
        numbers = [f"{value:.3f}" for value in shares]
        reached = (float(one["k95"]), *one["k95_ends"].to_numpy())
        numbers += [f"{k:g}" if math.isfinite(k) else f">{last}" for k in reached]
        numbers += [f"{float(one['nats_left'][k]):.2f}" for k in (at, 0)]
        limit = {"iterative": "k95 <= 8 (thesis l. 2497)", **dict.fromkeys(RIVALS, "k95 > 6 (H32)")}
        rows.append(
            f"{name},{one['steps'].item()},{','.join(numbers)},{n_seeds},{limit.get(name, '')}"
        )
    return rows


def verdict(found: xr.Dataset, start: str, n_seeds: int) -> tuple[str, str]:
    """Apply H32's rule to the intervals of one start."""
    from pcsim.verdict import MIN_REPLICAS

    def ends(lane: str) -> tuple[float, float]:
        low, high = found["k95_ends"].sel(lane=lane, start=start).to_numpy()
        return float(low), float(high)

    own, control = ends("iterative"), ends("untrained")
    if n_seeds < MIN_REPLICAS:
        return "INCONCLUSIVE", f"fewer than {MIN_REPLICAS} trained models"
    fast = [name for name in RIVALS if ends(name)[1] <= RIVAL_LIMIT]
    if fast:
        return "REFUTED", f"the {fast[0]} gradient needs no more than 6"
    if own[0] > LIMIT:
        return "REFUTED", "the iterative network needs more than 8"
    if own[1] > LIMIT or min(ends(name)[0] for name in RIVALS) <= RIVAL_LIMIT:
        return "INCONCLUSIVE", "an interval holds its limit"
    if control[0] <= LIMIT:
        return "NON-SPECIFIC", "an untrained network does it too"
    return "SUPPORTED", "iterative within 8; preconditioned and damped gradients need more than 6"


def figures(run: Run) -> dict[str, Figure]:
    """Draw the gap that is left over iterations, and k95, from the saved numbers."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    with (
        xr.open_dataset(run.folder / "summary.nc", engine="h5netcdf") as whole,
        publication_figure(DOUBLE_COLUMN, 74.0) as figure,
    ):
        found = whole.isel(trained_with=0).load()
        axes = figure.subplots(1, 3, width_ratios=[1.0, 1.0, 0.9])
        for ax, start in zip(axes, STARTS, strict=False):
            draw_gap(ax, found, start)
        axes[0].set_ylabel(r"Gap left, $1 - G_k$")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
        draw_iterations(axes[2], found)
        for ax, letter in zip(axes, "abc", strict=True):
            ax.set_title(letter, loc="left", fontweight="bold")
    return {"figure": figure}


def look(lane: str) -> dict[str, Any]:
    """Return how a lane is drawn, the same in every panel."""
    from pcsim.plots_style import DASHES, OKABE_ITO, colour

    shades = {
        "gradient": OKABE_ITO["sky"], "momentum": OKABE_ITO["purple"],
        "preconditioned": OKABE_ITO["orange"], "damped": OKABE_ITO["vermillion"],
        "iterative": OKABE_ITO["black"],
        "direct": OKABE_ITO["green"], "untrained": colour("control"),
    }  # fmt: skip
    place = LANES.index(lane)
    return {"color": shades[lane], "ls": DASHES[(place + 2) % len(DASHES)]}


def draw_gap(ax: Any, found: xr.Dataset, start: str) -> None:
    """Draw what is left of the gap against iterations, with its interval over models and images."""
    floor = 0.003
    for name in LANES:
        one = found.sel(lane=name, start=start)
        k = np.arange(one.sizes["iteration"])
        left = np.clip(1 - one["share"].to_numpy(), floor, 3.0)
        low, high = np.clip(1 - one["share_ends"].to_numpy(), floor, 3.0)
        ax.plot(k, left, label=name, **look(name))
        # What ran off the panel has no band in it.
        ax.fill_between(k, low, high, where=left < 3.0, color=look(name)["color"], alpha=0.2, lw=0)
    ax.axhline(1 - LEVEL, color="black", lw=0.6)
    ax.axvline(LIMIT, color="black", lw=0.6, ls=":")
    ax.set_xscale("symlog", linthresh=1.0)
    last = int(k[-1])
    ticks = [tick for tick in (0, 1, 2, 4, 8, 16, 32, 64) if tick <= last]
    ax.set_xticks(ticks, list(map(str, ticks)))
    ax.set(yscale="log", ylim=(floor, 3.0), xlim=(0, last), xlabel="Iteration $k$", title=start)
    ax.set_yticks([0.01, 0.05, 0.1, 1.0], ["0.01", "0.05", "0.1", "1"])
    ax.minorticks_off()


def draw_iterations(ax: Any, found: xr.Dataset) -> None:
    """Draw the iterations to 95 % of each lane, cold (filled) and warm (open)."""
    last = found.sizes["iteration"] - 1
    never = 2.0 * last
    for (row, name), start in ((a, s) for a in enumerate(LANES) for s in STARTS):
        one = found.sel(lane=name, start=start)
        low, high = np.minimum(one["k95_ends"].to_numpy(), never)
        k = min(float(one["k95"]), never)
        y = row + (-0.15 if start == "cold" else 0.15)
        face = look(name)["color"] if start == "cold" else "white"
        ax.plot([low, high], [y, y], color=look(name)["color"], lw=1.0, ls="-")
        ax.plot(k, y, "o", color=look(name)["color"], mfc=face, ms=4)
    ax.axvspan(0.8, LIMIT, color="0.92", lw=0, zorder=0)
    ax.set(xscale="log", xlim=(0.8, 1.25 * never), ylim=(len(LANES) - 0.5, -0.5))
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64) if tick <= last]
    ax.set_xticks([*ticks, never], [*map(str, ticks), f">{last}"])
    ax.set_xticks([], minor=True)
    ax.set_yticks(range(len(LANES)), LANES)
    ax.set(xlabel="Iterations to 95 % ($k_{95}$)", title="filled cold, open warm")


EXPERIMENT = Experiment(
    name="inference_iterations",
    question="Do few inference iterations suffice only if inference is amortized?",
    scales={
        "quick": {
            "seeds": 3, "trained_with": ("direct",), "n_z": (16,), "widths": ((128, 128),),
            "n_trained": 8, "n_train": 10_000, "n_validation": 24, "n_test": 40, "n_frames": 3,
            "n_iterations": 64, "n_samples": 5, "n_long": 300,
            "training": {"n_epochs": 6, "learning_rate": 1e-3, "batch_size": 64},
        },
        "full": {
            "seeds": 3, "trained_with": KINDS, "n_z": (32,), "widths": ((512, 512),),
            "n_trained": 8, "n_train": 50_000, "n_validation": 200, "n_test": 300, "n_frames": 4,
            "n_iterations": 64, "n_samples": 10, "n_long": 1_000,
            "training": {"n_epochs": 40, "learning_rate": 5e-4, "batch_size": 64},
        },
        "gpu": {
            "seeds": 5, "trained_with": KINDS, "n_z": (64,), "widths": ((512, 512),),
            "n_trained": 8, "n_train": 50_000, "n_validation": 500, "n_test": 1_000, "n_frames": 4,
            "n_iterations": 64, "n_samples": 10, "n_long": 1_000,
            "training": {"n_epochs": 300, "learning_rate": 2e-4, "batch_size": 64},
        },
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)  # fmt: skip
