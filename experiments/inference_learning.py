"""Is inference learning steadier than backpropagation, and faster at batch size 1? (Alonso 2022)

MNIST, one image at a time, network 784-256-256-10, rectifiers, softmax with cross-entropy, biases.
Four rules: backpropagation and inference learning, each with plain slopes (BP-SGD, IL-SGD) and
with proximal changes (BP-prox, IL-prox: slopes divided by the squared norm of what enters a layer,
and an output that goes only part of the way to its target); further BP-Adam, IL-Adam and
IL-prox-fast. `accuracy`: each rule at the published learning rate. `search`: at its own best rate
over a grid around it, the same number of rates for each rule. `stability`: rates .01 to 100, and
over how many of them a rule learns.

Published (https://arxiv.org/abs/2206.00164; settings read in the authors' code, no number is
quoted): IL learns faster than BP-SGD at batch size 1, and is stable over far more learning rates.

What differs: activities live before the rectifier for all rules (in the authors' code IL-SGD has
them after it); the proximal share of the output's error is found once, at the feedforward start, as
in `pcsim.deep.pc_proximal.proximal_step`; IL-Adam has the published rate of CIFAR-10, the only one
there is, times 10. At quick: 3 seeds, 1,000 images instead of 50,000, 500 test images; for
stability 300 instead of 20,000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.deep.pc_comparison import Change, Networks, train
from pcsim.deep.pc_lessons import load_images, repeated
from pcsim.deep.pc_replicas import Settling
from pcsim.experiment import Experiment, Piece, Run
from pcsim.stats import mean_interval
from pcsim.storage import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]


@dataclass(frozen=True)
class Rule:
    """How weights change, and the published learning rate on MNIST at batch size 1."""

    change: Change
    rate: float


PLAIN = Settling(n_steps=25, step=0.02, own=0.015, output_weight=0.5)
PROX = Settling(n_steps=25, step=0.015, own=0.015)
FAST = Settling(n_steps=12, step=0.025, own=0.0)
ADAM = Settling(n_steps=20, step=0.02, own=0.01, output_weight=0.5)
RULES = {
    "BP-SGD": Rule(Change(rule="bp"), 0.015),
    "IL-SGD": Rule(Change(settling=PLAIN), 0.05),
    "BP-prox": Rule(Change(rule="bp", optimiser="proximal"), 5.0),
    "IL-prox": Rule(Change(settling=PROX, optimiser="proximal"), 5.0),
    "IL-prox-fast": Rule(Change(settling=FAST, optimiser="proximal"), 3.0),
    "BP-Adam": Rule(Change(rule="bp", optimiser="adam"), 1e-4),
    "IL-Adam": Rule(Change(settling=ADAM, optimiser="adam"), 1e-4),
}
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""The grid of the search, times the published rate."""
STEADY = ("BP-SGD", "IL-SGD", "BP-prox", "IL-prox")
RATES = (0.01, 0.1, 1.0, 2.5, 10.0, 100.0)
LEARNS = 0.5
"""A rate counts as stable if the final error is below this."""
PAIRS = (
    ("IL-SGD", "BP-SGD"),
    ("IL-prox", "BP-SGD"),
    ("IL-prox", "BP-prox"),
    ("IL-Adam", "BP-Adam"),
)
SIZES = (784, 256, 256, 10)
COLUMNS = "part,rule,against,quantity,value,other,gain,low,high,n_seeds,rate,other_rate,holds"


def learn(
    folder: Path, needs: Mapping[str, Path], *, rule: str, rates: Sequence[float], exact: bool,
    seeds: Sequence[int], n_images: int, every: int, n_test: int, device: str,
) -> None:  # fmt: skip
    """Learn from single images by one rule at all rates; keep errors (test, seed, rate).

    With `exact` the proximal rules add nothing to the norm, as the authors' test of stability.
    """
    change = RULES[rule].change
    if exact:
        change = replace(change, epsilon=0.0)
    networks = Networks(
        sizes=SIZES, seeds=tuple(seeds), rates=tuple(rates), activation="relu",
        loss="cross_entropy", init="default", bias=True, device=device,
    )  # fmt: skip
    images = load_images("mnist", n_test=n_test)
    course = repeated(images, seeds, batch=1, n_epochs=n_images // every, most=every)
    error = train(networks, change, course)[:, 0]
    coords = {
        "seed": list(seeds), "rate": list(rates), "image": every * (1 + np.arange(len(error)))
    }  # fmt: skip
    xr.Dataset({"error": (("image", "seed", "rate"), error)}, coords=coords).to_netcdf(
        folder / "result.nc", engine="h5netcdf"
    )


def grid(rule: str) -> tuple[float, ...]:
    """Return the rates of the search for a rule."""
    return tuple(float(f"{factor * RULES[rule].rate:.6g}") for factor in FACTORS)


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return a piece for each rule and part; seeds and rates are one batch."""
    shared = {name: settings[name] for name in ("seeds", "every", "n_test", "device")}
    out = []
    for rule in RULES:
        own = {"rule": rule, "rates": grid(rule), "exact": False, "n_images": settings["n_images"]}
        key = f"search/{rule}"
        out.append(Piece(key=key, task=learn, kwargs={**own, **shared}, weight=2.0))
    for rule in STEADY:
        n = settings["n_stability"]
        own = {"rule": rule, "rates": RATES, "exact": True, "n_images": n}
        out.append(Piece(key=f"stability/{rule}", task=learn, kwargs={**own, **shared}))
    return out


def gather(run: Run, part: str, rules: Sequence[str]) -> xr.DataArray:
    """Return errors (rule, image, seed, place of the rate) of a part, rates as a coordinate."""
    found = []
    for rule in rules:
        path = run.piece(f"{part}/{rule}") / "result.nc"
        with xr.open_dataset(path, engine="h5netcdf") as one:
            error = one["error"].load()
        rates = ("place", error["rate"].to_numpy())
        found.append(error.drop_vars("rate").rename(rate="place").assign_coords(rate=rates))
    return xr.concat(found, xr.Variable("rule", list(rules)), coords=["rate"])


def collect(run: Run) -> None:
    """Write all errors, the table of pairs and the search."""
    search, stability = gather(run, "search", list(RULES)), gather(run, "stability", STEADY)
    rows = [COLUMNS]
    for ours, theirs in PAIRS:
        for part in ("published rate", "own best rate"):
            for quantity in ("final error", "mean error"):
                one, rate = chosen(search, ours, part, quantity)
                other, their_rate = chosen(search, theirs, part, quantity)
                names = f"{part},{ours},{theirs},{quantity}"
                rows.append(row(names, one, other, rate, their_rate, other - one))
    learned = (stability.isel(image=-1) < LEARNS).sum("place").astype(float)
    for ours, theirs in PAIRS[:3]:
        one, other = (learned.sel(rule=rule).to_numpy() for rule in (ours, theirs))
        names = f"stability,{ours},{theirs},rates of {len(RATES)} that learn"
        rows.append(row(names, one, other, np.nan, np.nan, one - other))
    write_text(run.folder / "table.csv", "\n".join(rows) + "\n")
    listed = ["part,rule,rate,final_error,mean_error"]
    for part, errors in (("search", search), ("stability", stability)):
        for rule in errors["rule"].values:
            for place in range(errors.sizes["place"]):
                here = errors.sel(rule=rule).isel(place=place)
                last = float(here.isel(image=-1).mean())
                rate = float(here["rate"])
                listed.append(f"{part},{rule},{rate:g},{last:.6g},{float(here.mean()):.6g}")
    write_text(run.folder / "search.csv", "\n".join(listed) + "\n")
    for name, errors in (("search", search), ("stability", stability)):
        with atomic_path(run.folder / f"{name}.nc") as part_path:
            errors.to_dataset(name="error").to_netcdf(part_path, engine="h5netcdf")


def chosen(errors: xr.DataArray, rule: str, part: str, quantity: str) -> tuple[Any, float]:
    """Return a rule's errors, one a seed, at the published or at its own best rate."""
    here = errors.sel(rule=rule)
    values = here.isel(image=-1) if quantity == "final error" else here.mean("image")
    place = FACTORS.index(1.0)
    if part == "own best rate":
        place = int(values.mean("seed").argmin("place"))
    best = values.isel(place=place)
    return best.to_numpy(), float(best["rate"])


def row(names: str, one: Any, other: Any, rate: float, other_rate: float, gain: Any) -> str:
    """Return a row of the table; `holds` where the interval of the gain leaves out 0."""
    found = mean_interval(gain)
    holds = "open"
    if found.n > 1 and (found.low > 0 or found.high < 0):
        holds = "yes" if found.low > 0 else "no"
    numbers = ",".join(f"{v:.6g}" for v in (one.mean(), other.mean(), *found[:3]))
    rates = ",".join("" if np.isnan(v) else f"{v:g}" for v in (rate, other_rate))
    return f"{names},{numbers},{found.n},{rates},{holds}"


def figures(run: Run) -> dict[str, Figure]:
    """Draw errors over images at the published rates, over the search, and the stability."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    with (
        xr.open_dataset(run.folder / "search.nc", engine="h5netcdf") as search,
        xr.open_dataset(run.folder / "stability.nc", engine="h5netcdf") as stability,
        publication_figure(DOUBLE_COLUMN, 68.0) as figure,
    ):
        axes: Any = figure.subplots(1, 3, sharey=True)
        for rule in RULES:
            errors = search["error"].sel(rule=rule)
            curve = errors.isel(place=FACTORS.index(1.0)).mean("seed")
            axes[0].plot(curve["image"], curve, label=rule, **style_of(rule))
            last = errors.isel(image=-1).mean("seed")
            axes[1].plot(FACTORS, last, **style_of(rule))
        for rule in STEADY:
            last = stability["error"].sel(rule=rule).isel(image=-1)
            axes[2].plot(RATES, last.mean("seed"), **style_of(rule))
        label(axes, int(search["image"].max()), int(stability["image"].max()))
    return {"figure": figure}


def style_of(rule: str) -> dict[str, Any]:
    """Return colour by inference or backpropagation, mark and line by optimiser."""
    from pcsim.plots_style import COLOURS

    kind = rule.split("-", 1)[1]
    marks = {"SGD": ("o", "-"), "prox": ("s", "--"), "prox-fast": ("^", ":"), "Adam": ("D", "-.")}
    mark, line = marks[kind]
    shade = COLOURS["error" if rule.startswith("IL") else "data"]
    face = "white" if kind == "Adam" else shade
    return {"color": shade, "marker": mark, "linestyle": line, "markerfacecolor": face}


def label(axes: Sequence[Axes], n_search: int, n_stability: int) -> None:
    """Write on the axes."""
    titles = ("published rates", f"after {n_search:,} images", f"after {n_stability:,} images")
    labels = ("Images seen, one at a time", "Learning rate / published", "Learning rate")
    for ax, letter, title, name in zip(axes, "abc", titles, labels, strict=True):
        ax.set_title(letter, loc="left", fontweight="bold")
        ax.set_title(title, fontsize=7)
        ax.set_xlabel(name)
        ax.set_ylim(0.0, 1.03)
    for ax in axes[1:]:
        ax.set_xscale("log")
        ax.axhline(0.9, color="black", linewidth=0.4, linestyle=":")
    axes[1].annotate("chance; above: not finite", (0.1, 0.91), va="bottom", fontsize=6)
    axes[0].set_ylabel("Test error")
    axes[0].legend(loc="upper right", ncols=2, fontsize=6, columnspacing=1.0)


EXPERIMENT = Experiment(
    name="inference_learning",
    question="Is inference learning steadier than backpropagation, and faster at batch size 1?",
    scales={
        "quick": {
            "seeds": 3, "n_images": 1000, "n_stability": 300, "every": 100, "n_test": 500,
            "device": "cpu",
        },
        "full": {
            "seeds": 5, "n_images": 50_000, "n_stability": 20_000, "every": 1000,
            "n_test": 10_000, "device": "cpu",
        },
        "gpu": {
            "seeds": 5, "n_images": 50_000, "n_stability": 20_000, "every": 500,
            "n_test": 10_000, "device": "cuda",
        },
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)  # fmt: skip
