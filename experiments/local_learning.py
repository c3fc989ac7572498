"""Do the local weight changes of predictive coding point where backpropagation points? (H39)

A classifier of MNIST, 784-256-256-10, tanh. Its output is held at a target and its activities
settle; on the way, the cosine between the change that each layer would make and backpropagation's
for the same target. Conditions: the variance that the output is given (hidden layers have 1), and a
target that lies only a hundredth of the way from the output to the label. Before training, and
after training by backpropagation. Two controls carry errors by fixed random matrices instead of the
transposed weights: predictive coding, and backpropagation (feedback alignment).

Published (Whittington & Bogacz 2017, https://doi.org/10.1162/NECO_a_00949): "for certain
parameters" the changes converge to backpropagation's (abstract, read); the parameter is the
variance of the output, shown at 1 to 256 (remembered). What differs: the paper's network on MNIST
is 784-600-600-10 and sigmoid (remembered).

Small errors alone do not make the two equal. In a linear network with one hidden layer the
output's error at equilibrium is :math:`(I + \\pi W W^\\top)^{-1}` times that of backpropagation,
however small it is; it is the precision :math:`\\pi` of the output that has to be small. On the
way there, slopes reach a layer k links away from the output in k steps, and at that very step the
direction is exactly backpropagation's (Song et al. 2020, https://arxiv.org/abs/2103.04689).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.data_arrays import labelled_rows, one_hot
from pcsim.deep.pc_alignment import copies, random_feedback, update_directions
from pcsim.deep.pc_comparison import Change, Lesson, Networks, train
from pcsim.experiment import Experiment, Piece, Run
from pcsim.stats import mean_interval
from pcsim.storage import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

SIZES = (784, 256, 256, 10)
CONDITIONS = {
    "variance 1": (1.0, 1.0),
    "variance 1 and small error": (0.01, 1.0),
    "variance 8": (1.0, 8.0),
    "variance 64": (1.0, 64.0),
    "variance 256": (1.0, 256.0),
}
"""Name -> how far the target lies on the way to the label, and variance of the output."""
STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
STEP, BATCH = 0.1, 64
RATE, TRAIN_BATCH = 0.01, 64
WAYS = ("PC", "PC, random feedback", "feedback alignment")
STATES = ("before training", "after training")
CLAIM = {"PC": "to 1 as the variance grows", "other": "control: below"}


def follow(
    folder: Path, needs: Mapping[str, Path], *, seed: int, n_train: int, n_batches: int, n_test: int
) -> None:
    """Look at one network before and after its training; keep cosines and its error rate."""
    rng = np.random.default_rng(seed)
    x, label = labelled_rows("mnist", n=n_train)
    y = one_hot(label, 10)
    probe = rng.choice(len(x), BATCH, replace=False)
    held = labelled_rows("mnist", split="test", n=n_test)
    networks = Networks(sizes=SIZES, seeds=(seed,), rates=(RATE,), activation="tanh")
    cosines, errors = [], []
    for state in STATES:
        n = n_batches if state == STATES[1] else 0
        picked = [rng.integers(len(x), size=TRAIN_BATCH) for _ in range(n)]
        start = networks.build()
        lessons = [Lesson(x[one][None], y[one][None]) for one in picked]
        train(networks, Change(rule="bp", average=True), lessons, start=start)
        last = Lesson(x[probe][None], y[probe][None], (held,))
        still = start[0], 0.0 * start[1]
        errors.append(train(networks, Change(rule="bp"), [last], start=still)[0, 0, 0, 0])
        cosines.append(look(start[0], x[probe], y[probe], seed=seed))
    xr.concat(cosines, xr.Variable("state", list(STATES))).assign(
        error=("state", errors)
    ).to_netcdf(folder / "result.nc", engine="h5netcdf")


def look(net: Any, x: Any, y: Any, *, seed: int) -> xr.Dataset:
    """Return cosines of one network for every condition and every way down."""
    many, inputs, targets = copies(net, x, y, len(CONDITIONS))
    shares, variances = zip(*CONDITIONS.values(), strict=True)
    settings: dict[str, Any] = {
        "shares": shares, "variances": variances, "steps": STEPS, "step": STEP,
    }  # fmt: skip
    own = update_directions(many, inputs, targets, **settings)
    feedback = random_feedback(many, 1000 + seed)
    other = update_directions(many, inputs, targets, **settings, feedback=feedback)
    alignment = np.broadcast_to(other.backprop, other.local.shape)
    return xr.Dataset(
        {"cosine": (("way", "step", "condition", "layer"), [own.local, other.local, alignment])},
        coords={
            "way": list(WAYS),
            "step": list(STEPS),
            "condition": list(CONDITIONS),
            "layer": np.arange(1, len(SIZES)),
        },
    )


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return one piece for each seed."""
    sizes = {name: settings[name] for name in ("n_train", "n_batches", "n_test")}
    return [
        Piece(key=f"follow/{seed}", task=follow, kwargs={"seed": seed, **sizes})
        for seed in settings["seeds"]
    ]


def collect(run: Run) -> None:
    """Stack the seeds into one file and write the cosines at the last step as a table."""
    parts = []
    for seed in run.settings["seeds"]:
        with xr.open_dataset(run.piece(f"follow/{seed}") / "result.nc", engine="h5netcdf") as one:
            parts.append(one.load())
    result = xr.concat(parts, xr.Variable("seed", list(run.settings["seeds"])))
    with atomic_path(run.folder / "local_learning.nc") as part:
        result.to_netcdf(part, engine="h5netcdf")
    rows = ["state,way,condition,layer,cosine,low,high,n_seeds,error_rate,published"]
    for state in STATES:
        error = float(result["error"].sel(state=state).mean())
        for way in WAYS:
            for condition in CONDITIONS:
                for layer in result["layer"].values:
                    here = {"state": state, "way": way, "condition": condition, "layer": layer}
                    end = result["cosine"].sel(here).isel(step=-1)
                    found = mean_interval(end.to_numpy())
                    numbers = ",".join(f"{one:.6g}" for one in found[:3])
                    claim = CLAIM.get(way, CLAIM["other"])
                    name = way.replace(",", " with")
                    rows.append(
                        f"{state},{name},{condition},{layer},{numbers},{found.n},{error:.4g},{claim}"
                    )
    write_text(run.folder / "table.csv", "\n".join(rows) + "\n")


def figures(run: Run) -> dict[str, Figure]:
    """Draw cosines against steps for each state, and the last ones against the variance."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    with (
        xr.open_dataset(run.folder / "local_learning.nc", engine="h5netcdf") as result,
        publication_figure(DOUBLE_COLUMN, 70.0) as figure,
    ):
        axes: Any = figure.subplots(1, 3)
        draw_steps(axes[0], result, WAYS[0])
        draw_steps(axes[1], result, WAYS[1])
        draw_variances(axes[2], result)
        axes[0].set_ylim(0.94, 1.003)
        axes[1].set_ylim(-0.2, 1.03)
        axes[1].axhline(0.0, color="black", linewidth=0.4)
        for ax, letter in zip(axes, "abc", strict=True):
            ax.set_title(letter, loc="left", fontweight="bold")
    return {"figure": figure}


def draw_steps(ax: Axes, result: xr.Dataset, way: str) -> None:
    """Draw the mean over seeds at variance 1, a colour for each state and a line for each layer."""
    from pcsim.plots_style import COLOURS, DASHES

    here = result["cosine"].sel(condition="variance 1", way=way)
    for state, shade in zip(STATES, (COLOURS["error"], COLOURS["latent"]), strict=True):
        for layer in here["layer"].values:
            mean = here.sel(state=state, layer=layer).mean("seed", skipna=False)
            label = f"layer {layer}" if state == STATES[0] else None
            ax.plot(mean["step"], mean, label=label, color=shade, linestyle=DASHES[layer - 1])
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xticks([0, 1, 4, 16, 64, 256], ["0", "1", "4", "16", "64", "256"])
    ax.set_xticks([], minor=True)
    ax.set_xlim(0, 280)
    ax.set_xlabel("Inference steps")
    ax.set_ylabel("Cosine with backpropagation")
    ax.set_title(way.removeprefix("PC, "), fontsize=7)
    ax.legend(loc="lower left" if way == WAYS[0] else "center right")


def draw_variances(ax: Axes, result: xr.Dataset) -> None:
    """Draw how far the cosine at the last step is from 1, against the variance of the output."""
    from pcsim.plots_style import COLOURS, DASHES

    here = 1.0 - result["cosine"].isel(step=-1).sel(way=WAYS[0])
    full = {name: variance for name, (share, variance) in CONDITIONS.items() if share == 1.0}
    for state, mark in zip(STATES, ("o", "s"), strict=True):
        shade = COLOURS["error"] if mark == "o" else COLOURS["latent"]
        for layer in here["layer"].values:
            values = here.sel(state=state, layer=layer)
            mean = [float(values.sel(condition=name).mean()) for name in full]
            label = state if layer == 1 else None
            style: dict[str, Any] = {"color": shade, "marker": mark, "label": label}
            ax.plot(list(full.values()), mean, linestyle=DASHES[layer - 1], **style)
            small = float(values.sel(condition="variance 1 and small error").mean())
            ax.plot([0.6], [small], marker=mark, color=shade, markerfacecolor="white")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.axhline(1e-3, color="black", linewidth=0.6, linestyle=":")
    ax.set_xlabel("Variance of the output (hidden: 1)")
    ax.set_ylabel("1 \N{MINUS SIGN} cosine")
    ax.set_title("PC, step 256", fontsize=7)
    ax.annotate("open: error of a hundredth", (3.0, 3e-2), fontsize=6)
    ax.legend(loc="lower left")


EXPERIMENT = Experiment(
    name="local_learning",
    question="Do local weight changes point where backpropagation points?",
    scales={
        "quick": {"seeds": 5, "n_train": 10_000, "n_batches": 500, "n_test": 2000},
        "full": {"seeds": 10, "n_train": 60_000, "n_batches": 5000, "n_test": 10_000},
        "gpu": {"seeds": 10, "n_train": 60_000, "n_batches": 5000, "n_test": 10_000},
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)
