"""Does an amortized guess make inference by predictive coding fast and keep it accurate? (HPC)

Networks of Tschantz et al. (2023): generative 10-500-500-784, amortized 784-500-500-10, tanh, the
last layer linear, weights N(0, .05), targets .97 and .03, steps of .02 on half the squared error,
Adam 1e-4, batch 64, MNIST. Hybrid inference starts at the amortized guess and teaches it; plain
inference starts at random. `whole`: all digits; accuracy of hybrid, of plain, and of hybrid's
guess alone. `split`: digits 0-4, then 5-9; iterations until the errors are below the threshold.

Published (https://doi.org/10.1371/journal.pcbi.1011280; claims and settings from the authors' code,
no number is quoted): hybrid reaches the accuracy of plain inference and of the amortized network;
its iterations fall during training and rise where the distribution changes.

What differs: pixels are from 0 to 1, as in the authors' code, where normalisation is never applied;
Adam corrects its bias; accuracy is over all test images. The amortized network is hybrid's own, not
one trained alone on labels. At quick: the authors' local variant (20 iterations in training, 100 in
tests), 2 seeds, 80 batches instead of 500 (split: 60 and 40 instead of 2000 and 1000), 128 test
images instead of 10,000. So early no network has learned and 20 iterations never reach the
threshold: quick shows that everything runs, and cannot decide any of the claims. Plain inference
is their control: what its iterations do too is not due to the guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.data_arrays import labelled_rows, one_hot
from pcsim.deep.pc_perception import STARTS, Perception, PerceptionSettings
from pcsim.experiment import Experiment, Piece, Run
from pcsim.stats import mean_interval
from pcsim.storage import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

BATCH = 64
HIGH, LOW = 0.97, 0.03
THRESHOLD = 0.005
NAMES = {"amortized": "hybrid", "random": "plain"}
MOVES = ("fall during training", "rise at change")
COLUMNS = "task,quantity,value,low,high,n_seeds,published,holds"


def perceive(
    folder: Path, needs: Mapping[str, Path], *, task: str, start: str, seed: int, plan: Any
) -> None:
    """Train one network; keep iterations of every batch, and accuracy at every test."""
    x, label = labelled_rows("mnist", n=plan["n_images"])
    test = labelled_rows("mnist", split="test", n=plan["n_test_images"])
    rng = np.random.default_rng(seed)
    settings = PerceptionSettings(
        n_train=plan["n_train"], n_test=plan["n_test"], device=plan["device"],
        threshold=THRESHOLD if task == "split" else None,
    )  # fmt: skip
    network = Perception(settings, start=start, seed=seed)
    efforts, tests = [], []
    for count, places in enumerate(batches(label, task, plan, rng), 1):
        y = one_hot(label[places], 10, low=LOW, high=HIGH)
        efforts.append(network.learn(x[places], y))
        if count % plan["every"] == 0:
            tests.append((count, *tested(network, *among(test, task, count, plan))))
    where, inferred, guessed, iterations = (list(one) for one in zip(*tests, strict=True))
    xr.Dataset(
        {
            "steps": ("batch", [one.n_steps for one in efforts]),
            "first_energy": ("batch", [one.first_energy for one in efforts]),
            "last_energy": ("batch", [one.last_energy for one in efforts]),
            "accuracy": ("test", inferred),
            "guess": ("test", guessed),
            "test_steps": ("test", iterations),
        },
        coords={"batch": np.arange(1, len(efforts) + 1), "test": where},
    ).to_netcdf(folder / "result.nc", engine="h5netcdf")


def batches(label: Any, task: str, plan: Any, rng: np.random.Generator) -> Any:
    """Yield places of images; of the task split, digits 0-4 first and 5-9 after the switch."""
    total = plan["n_batches"] if task == "whole" else plan["switch"] + plan["after"]
    for count in range(1, total + 1):
        allowed = np.arange(len(label))
        if task == "split":
            allowed = np.nonzero((label < 5) == (count <= plan["switch"]))[0]
        yield rng.choice(allowed, BATCH, replace=False)


def among(test: Any, task: str, count: int, plan: Any) -> Any:
    """Return the test images of the digits that are being learned."""
    x, label = test
    if task == "whole":
        return x, label
    kept = (label < 5) == (count <= plan["switch"])
    return x[kept], label[kept]


def tested(network: Perception, x: Any, label: Any) -> tuple[float, float, float]:
    """Return accuracy of inference, of the guess, and iterations a batch."""
    right, guessed, steps, n = 0, 0, 0, 0
    for begin in range(0, len(x), BATCH):
        part = slice(begin, begin + BATCH)
        inferred, alone = network.classify(x[part])
        right += int((inferred.label == label[part]).sum())
        guessed += int((alone.label == label[part]).sum())
        steps, n = steps + inferred.n_steps, n + 1
    return right / len(x), guessed / len(x), steps / n


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return a piece for each task, start and seed."""
    plan = {name: value for name, value in settings.items() if name not in ("seeds", "scale")}
    return [
        Piece(
            key=f"{task}/{start}/{seed}", task=perceive,
            kwargs={"task": task, "start": start, "seed": seed, "plan": plan},
        )
        for task in ("whole", "split")
        for start in STARTS
        for seed in settings["seeds"]
    ]  # fmt: skip


def gather(run: Run, task: str) -> xr.Dataset:
    """Return all networks of a task, (start, seed, ...)."""
    rows = []
    for start in STARTS:
        parts = []
        for seed in run.settings["seeds"]:
            path = run.piece(f"{task}/{start}/{seed}") / "result.nc"
            with xr.open_dataset(path, engine="h5netcdf") as one:
                parts.append(one.load())
        rows.append(xr.concat(parts, xr.Variable("seed", list(run.settings["seeds"]))))
    return xr.concat(rows, xr.Variable("start", list(STARTS)))


def collect(run: Run) -> None:
    """Write both tasks and the table."""
    rows = [COLUMNS]
    whole, split = gather(run, "whole"), gather(run, "split")
    last = whole.isel(test=-1)
    hybrid, plain = (last["accuracy"].sel(start=start).to_numpy() for start in STARTS)
    guess = last["guess"].sel(start="amortized").to_numpy()
    rows.append(row("whole", "accuracy hybrid", hybrid))
    rows.append(row("whole", "accuracy plain", plain))
    rows.append(row("whole", "accuracy of hybrid's guess", guess))
    rows.append(row("whole", "hybrid minus plain", hybrid - plain, "not below 0", sign=1))
    rows.append(row("whole", "hybrid minus its guess", hybrid - guess, "not below 0", sign=1))
    for start in STARTS:
        for name, claimed in (("steps", True), ("first_energy", False)):
            rows += change_rows(split[name].sel(start=start), start, claimed, run.settings)
    own, control = (changes(split["steps"].sel(start=start), run.settings) for start in STARTS)
    for what in MOVES:
        rows.append(
            row("split", f"hybrid less plain iterations: {what}", own[what] - control[what])
        )
    write_text(run.folder / "table.csv", "\n".join(rows) + "\n")
    for task, data in (("whole", whole), ("split", split)):
        with atomic_path(run.folder / f"{task}.nc") as part:
            data.to_netcdf(part, engine="h5netcdf")


def change_rows(
    values: xr.DataArray, start: str, claimed: bool, settings: Mapping[str, Any]
) -> list[str]:
    """Return rows of a quantity (seed, batch) around the change of digits.

    Published is what hybrid's iterations do; the energy where inference begins, which no limit of
    iterations cuts off, stands beside them.
    """
    quantity = "iterations" if values.name == "steps" else "energy at the start (nats)"
    name = f"{NAMES[start]} {quantity}"
    claim = "above 0" if claimed and start == "amortized" else ""
    return [
        row("split", f"{name}: {what}", one, claim, sign=1) if what in MOVES
        else row("split", f"{name} {what}", one)
        for what, one in changes(values, settings).items()
    ]  # fmt: skip


def changes(values: xr.DataArray, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return means of a quantity (seed, batch) in windows, and how it moved between them."""
    switch, width = settings["switch"], settings["window"]
    windows = {
        "first": slice(1, width),
        "before change": slice(switch - width + 1, switch),
        "after change": slice(switch + 1, switch + width),
    }
    means = {
        name: values.astype(float).sel(batch=window).mean("batch").to_numpy()
        for name, window in windows.items()
    }
    first, before, after = means.values()
    return means | dict(zip(MOVES, (first - before, after - before), strict=True))


def row(task: str, quantity: str, values: Any, published: str = "", *, sign: int = 0) -> str:
    """Return a row of the table; `holds` where the interval leaves out 0 and a sign is claimed."""
    found = mean_interval(values)
    holds = ""
    if published and sign:
        holds = "open"
        if found.n > 1 and (found.low > 0 or found.high < 0):
            holds = "yes" if found.low > 0 else "no"
    numbers = ",".join(f"{one:.6g}" for one in found[:3])
    return f"{task},{quantity},{numbers},{found.n},{published},{holds}"


def figures(run: Run) -> dict[str, Figure]:
    """Draw accuracy over training, accuracy and iterations over the change."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    with (
        xr.open_dataset(run.folder / "whole.nc", engine="h5netcdf") as whole,
        xr.open_dataset(run.folder / "split.nc", engine="h5netcdf") as split,
        publication_figure(DOUBLE_COLUMN, 110.0) as figure,
    ):
        axes: Any = figure.subplots(2, 2).flat
        draw_accuracy(axes[0], whole, "all digits")
        draw_accuracy(axes[1], split, "digits 0-4, then 5-9")
        draw_steps(axes[2:], split)
        axes[0].legend(loc="best")
        for ax in axes[1:]:
            ax.axvline(run.settings["switch"] + 0.5, color="black", linewidth=0.6, linestyle=":")
        for ax, letter in zip(axes, "abcd", strict=True):
            ax.set_title(letter, loc="left", fontweight="bold")
    return {"figure": figure}


def draw_accuracy(ax: Axes, data: xr.Dataset, title: str) -> None:
    """Draw accuracy of hybrid, plain and of the guess: mean, and every seed thin."""
    from pcsim.plots_style import COLOURS

    lines = (
        ("accuracy", "amortized", "hybrid", COLOURS["error"], "s", "-"),
        ("accuracy", "random", "plain", COLOURS["latent"], "o", "--"),
        ("guess", "amortized", "hybrid's guess alone", COLOURS["control"], "^", ":"),
    )
    for name, start, label, shade, mark, line in lines:
        here = data[name].sel(start=start)
        style: dict[str, Any] = {"color": shade, "linestyle": line}
        ax.plot(data["test"], here.mean("seed"), label=label, marker=mark, **style)
        for seed in here["seed"].values:
            ax.plot(data["test"], here.sel(seed=seed), linewidth=0.4, **style)
    ax.set_ylim(0.0, 1.0)
    ax.set_xlabel("Batches")
    ax.set_ylabel("Test accuracy")
    ax.set_title(title, fontsize=7)


def draw_steps(axes: Any, split: xr.Dataset) -> None:
    """Draw iterations to the threshold and the energy where inference begins, over training."""
    from pcsim.plots_style import COLOURS

    for ax, name in zip(axes, ("steps", "first_energy"), strict=True):
        for start, shade, line in (
            ("amortized", COLOURS["error"], "-"),
            ("random", COLOURS["latent"], "--"),
        ):
            here = split[name].sel(start=start).mean("seed")
            ax.plot(split["batch"], here, color=shade, linestyle=line)
        ax.set_ylim(0.0, 1.08 * float(split[name].max()))
        ax.set_xlabel("Batches")
        ax.set_title("digits 0-4, then 5-9", fontsize=7)
    axes[0].set_ylabel("Iterations to threshold")
    axes[1].set_ylabel("Energy at the start (nats an image)")


FULL = {
    "seeds": 5, "device": "cpu", "n_train": 100, "n_test": 500, "n_images": 60_000,
    "n_test_images": 10_000, "n_batches": 500, "switch": 2000, "after": 1000, "every": 50,
    "window": 50,
}  # fmt: skip
QUICK = {
    "seeds": 2, "device": "cpu", "n_train": 20, "n_test": 100, "n_images": 10_000,
    "n_test_images": 128, "n_batches": 80, "switch": 60, "after": 40, "every": 20, "window": 10,
}  # fmt: skip

EXPERIMENT = Experiment(
    name="hybrid_predictive_coding",
    question="Does an amortized guess make inference fast and keep it accurate?",
    scales={"quick": QUICK, "full": FULL, "gpu": {**FULL, "device": "cuda"}},
    pieces=pieces,
    collect=collect,
    figures=figures,
)
