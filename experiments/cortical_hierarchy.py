"""How do errors ascend and predictions descend in a cortical hierarchy, and what do they look like?

The anatomy that predictive coding is laid over (thesis figure 8.1: areas one behind the other, each
of a few layers, with forward and backward connections), drawn from what the laminar column itself
declares, above the responses of its errors and estimates to the onset of natural images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.experiment import Experiment, Piece, Run
from pcsim.model import lesion
from pcsim.protocols import visual_field
from pcsim.roster import load_model, save_model, train, variant
from pcsim.stimuli import natural_patches
from pcsim.stimulus import stimulus_array
from pcsim.storage import atomic_path, read_json, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

COLUMN = "COLUMN"
ON, OFF, STEP = 0.25, 0.15, 0.002
"""Seconds that an image is on, that grey follows it, and between recorded times."""
N_IMAGES = {"quick": 8, "full": 64}
ROLES = ("error", "latent")
DEPTH = {"L2/3": 0.0, "L4": 1.0, "L5/6": 2.0, "": 1.0}
"""Layer -> row of the drawing, from the surface down; what has no layer lies in the middle."""
SHIFT = {"error": 0.0, "interneuron": 0.34, "prediction": -0.34, "input": 0.0, "latent": 0.0}
"""Role -> place within its layer, in widths of an area."""


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return the training of each replica, and its responses."""
    found = []
    for seed in settings["seeds"]:
        own = {"seed": seed, "scale": settings["scale"]}
        found.append(Piece(key=f"train/{seed}", task=train_column, kwargs=own, weight=9.0))
        needs = (f"train/{seed}",)
        found.append(Piece(key=f"respond/{seed}", task=respond, kwargs=own, needs=needs))
    return found


def train_column(folder: Path, needs: Mapping[str, Path], *, seed: int, scale: str) -> None:
    """Train one replica of the column on natural images."""
    column = variant(COLUMN)
    save_model(train(column, seed=seed, scale=scale), folder / "model", column.circuit)


def respond(folder: Path, needs: Mapping[str, Path], *, seed: int, scale: str) -> None:
    """Show images on grey; keep the size of each population's rate, and how it is wired."""
    (trained,) = needs.values()
    model: Any = load_model(trained / "model")
    field, px_per_deg = visual_field(model)
    patches = natural_patches(field, n=N_IMAGES[scale], px_per_deg=px_per_deg, seed=seed + 20_000)
    grey = np.full_like(patches.to_numpy(), 0.5)
    n_on, n_off = round(ON / 0.05), round(OFF / 0.05)
    frames = [patches.to_numpy()] * n_on + [grey] * n_off
    shown = stimulus_array(
        np.concatenate(frames, axis=1), frame_duration=0.05, px_per_deg=px_per_deg
    )
    names = [one.name for one in model.populations if one.population in ROLES]
    responses = lesion(model, record_dt=STEP).run(shown, seed=seed, record=names)
    with atomic_path(folder / "sizes.nc") as part:
        sizes(responses).to_netcdf(part, engine="h5netcdf")
    write_json(folder / "wiring.json", wiring(model))


def sizes(responses: xr.Dataset) -> xr.Dataset:
    """Return the root mean square rate of each role in each area, over units and images.

    Returns
    -------
    xr.Dataset
        `rate` (role, area, time); NaN where an area has no such units.
    """
    rate = responses["rate"].transpose("trial", "time", "unit").to_numpy()
    areas = list(dict.fromkeys(responses["area"].values.astype(str).tolist()))
    found = np.full((len(ROLES), len(areas), rate.shape[1]), np.nan)
    for i, role in enumerate(ROLES):
        for j, area in enumerate(areas):
            mine = (responses["population"].values == role) & (responses["area"].values == area)
            if mine.any():
                found[i, j] = np.sqrt((rate[:, :, mine] ** 2).mean(axis=(0, 2)))
    coords = {"role": list(ROLES), "area": areas, "time": responses["time"].values}
    return xr.Dataset({"rate": (("role", "area", "time"), found)}, coords=coords)


def wiring(model: Any) -> dict[str, Any]:
    """Return populations and projections as the circuit declares them, as plain values."""
    populations = [
        {
            "name": one.name, "role": one.population, "area": one.area, "layer": one.layer,
            "level": one.level, "size": one.size,
        }
        for one in model.populations
    ]  # fmt: skip
    level = {one["name"]: one["level"] for one in populations}
    projections = [
        {
            "source": one.source, "target": one.target, "delay": one.delay,
            "course": course(level[one.source], level[one.target]),
        }
        for one in model.projections
        if one.source in level
    ]  # fmt: skip
    return {"populations": populations, "projections": projections}


def course(source: int, target: int) -> str:
    """Return "forward", "backward" or "local"."""
    if source == target:
        return "local"
    return "forward" if target > source else "backward"


def collect(run: Run) -> None:
    """Leave the sizes of all replicas and the wiring, which all replicas share."""
    folders = [run.piece(f"respond/{seed}") for seed in run.settings["seeds"]]
    found = [xr.load_dataset(one / "sizes.nc", engine="h5netcdf") for one in folders]
    whole = xr.concat(found, xr.Variable("replica", list(run.settings["seeds"])))
    with atomic_path(run.folder / "sizes.nc") as part:
        whole.to_netcdf(part, engine="h5netcdf")
    write_json(run.folder / "wiring.json", read_json(folders[0] / "wiring.json"))


def figures(run: Run) -> dict[str, Figure]:
    """Draw the hierarchy, and below it what each area does; the anatomy alone for one column."""
    from pcsim.plots import DOUBLE_COLUMN, SINGLE_COLUMN, publication_figure

    parts = read_json(run.folder / "wiring.json")
    rates = xr.load_dataset(run.folder / "sizes.nc", engine="h5netcdf")["rate"]
    with publication_figure(DOUBLE_COLUMN, 112.0) as figure:
        halves: Any = figure.subfigures(2, 1, height_ratios=(1.35, 1.0))
        above, below = halves
        _anatomy(parts, above.add_subplot())
        _responses(rates, below)
        for part, letter in ((above, "a"), (below, "b")):
            part.text(0.005, 0.995, letter, fontsize=9, fontweight="bold", va="top")
    with publication_figure(SINGLE_COLUMN, 62.0) as narrow:
        _anatomy(parts, narrow.add_subplot(), small=True)
    return {"figure": figure, "anatomy": narrow}


def _places(populations: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return where each population is drawn: areas from left to right, layers downwards."""
    areas = list(dict.fromkeys(one["area"] for one in populations))
    return {
        one["name"]: (areas.index(one["area"]) + SHIFT.get(one["role"], 0.0), DEPTH[one["layer"]])
        for one in populations
    }


def _anatomy(parts: Mapping[str, Any], ax: Axes, *, small: bool = False) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyBboxPatch

    from pcsim.plots_laminar import ROLE_COLOURS, ROLE_NAMES

    populations = parts["populations"]
    places = _places(populations)
    for number, area in enumerate(dict.fromkeys(one["area"] for one in populations)):
        layers = {DEPTH[one["layer"]] for one in populations if one["area"] == area}
        top, tall = min(layers) - 0.38, max(layers) - min(layers) + 0.76
        wide = 0.24 if len(layers) == 1 else 0.47
        box = FancyBboxPatch(
            (number - wide, top), 2 * wide, tall, boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="#F6F6F4", edgecolor="#B0B0B0", linewidth=0.6, zorder=0,
        )  # fmt: skip
        ax.add_patch(box)
        ax.text(number, top - 0.08, area, ha="center", va="bottom", fontweight="bold")
    for one in parts["projections"]:
        _arrow(ax, places[one["source"]], places[one["target"]], one["course"], small=small)
    for one in populations:
        x, y = places[one["name"]]
        shade = ROLE_COLOURS[one["role"]]
        ax.plot(x, y, "o", color=shade, markersize=6 if small else 11, zorder=3)
        if not small:
            ax.text(
                x, y, one["size"], color="white", ha="center", va="center", fontsize=5, zorder=4
            )
    last = len(dict.fromkeys(one["area"] for one in populations)) - 1
    for layer, y in DEPTH.items():
        if layer:
            ax.text(last + 0.52, y, layer, va="center", color="#555555")
    ax.set_xlim(-0.5, last + 0.9)
    ax.set_ylim(2.6, -0.85)
    ax.set_axis_off()
    roles = dict.fromkeys(one["role"] for one in populations)
    marks = [
        Line2D([], [], linestyle="", marker="o", color=ROLE_COLOURS[r], label=ROLE_NAMES[r])
        for r in roles
    ]
    arrows = [Line2D([], [], color=ARROWS[c][0], lw=ARROWS[c][1], label=c) for c in ARROWS]
    ax.legend(
        handles=[*marks, *arrows], loc="upper center", bbox_to_anchor=(0.5, 0.02),
        ncols=4 if small else 8, handlelength=1.2, columnspacing=1.2,
    )  # fmt: skip


ARROWS = {"forward": ("#D55E00", 1.4), "backward": ("#009E73", 1.4), "local": ("#8A8A8A", 0.7)}
"""Course of a projection -> colour and width; forward carries errors, backward predictions."""


def _arrow(
    ax: Axes, source: tuple[float, float], target: tuple[float, float], kind: str, *, small: bool
) -> None:
    (shade, width), gap = ARROWS[kind], 3.5 if small else 6.0
    # Two populations that drive each other get an arrow each, bent to either side.
    bend = {"forward": -0.12, "backward": -0.12, "local": 0.22}[kind]
    ax.annotate(
        "", target, source, zorder=1 if kind == "local" else 2,
        arrowprops={
            "arrowstyle": "-|>,head_width=0.18,head_length=0.32", "color": shade, "lw": width,
            "connectionstyle": f"arc3,rad={bend}", "shrinkA": gap, "shrinkB": gap,
        },
    )  # fmt: skip


def _responses(rates: xr.DataArray, figure: Any) -> None:
    """Draw errors and estimates of each area over time, with the range over replicas."""
    from pcsim.plots import plot_tuning
    from pcsim.plots_laminar import ROLE_COLOURS, ROLE_NAMES

    areas = rates["area"].values.tolist()
    axes = figure.subplots(1, len(areas), sharex=True, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for ax, area in zip(axes, areas, strict=True):
        for role, line in zip(ROLES, ("-", "--"), strict=True):
            one = rates.sel(area=area, role=role)
            if not bool(one.isnull().all()):
                shown = one.assign_coords(time=1e3 * one["time"]).reset_coords(drop=True)
                label = f"{ROLE_NAMES[role]}s"
                plot_tuning(
                    shown, x="time", ax=ax, color=ROLE_COLOURS[role], linestyle=line, label=label
                )
        found, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
        ax.axvspan(0.0, 1e3 * ON, color="#F0F0F0", linewidth=0, zorder=0)
        ax.set_title(area)
        ax.set_ylim(bottom=0.0)
        ax.set_xlim(0.0, 1e3 * (ON + OFF))
        ax.set_xlabel("Time (ms)")
    axes[0].set_ylabel("Rate (a.u., r.m.s.)")
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=2,
        title="Image on in grey; bands: lowest to highest replica", title_fontsize=7,
    )  # fmt: skip


EXPERIMENT = Experiment(
    name="cortical_hierarchy",
    question="How do errors ascend and predictions descend in a cortical hierarchy?",
    scales={"quick": {"seeds": 3}, "full": {"seeds": 5}},
    pieces=pieces,
    collect=collect,
    figures=figures,
)
