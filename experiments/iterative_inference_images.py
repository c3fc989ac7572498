"""Does iterative inference win on images other than MNIST's digits? (thesis, table 3.2)

Fashion-MNIST under a discretised Gaussian (bits a dimension), Omniglot under a Bernoulli of newly
binarised images (nats), and at scale gpu CIFAR-10 where it is at hand, on one and two levels:
direct and iterative inference from the same decoder weights, equal samples, paired by seed.
Epochs are equal but in "direct-longer", a direct network that learns as many times longer as
iterative inference evaluates the free energy more often: equal compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcsim import data
from pcsim.experiment import Experiment, Piece, Run, in_parts
from pcsim.storage import read_json, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

TITLES = {"fashion_mnist": "Fashion-MNIST", "omniglot": "Omniglot", "cifar10": "CIFAR-10"}
PUBLISHED = {1: (5.823, 0.001, 5.64, 0.03), 2: (5.565, 0.002, 5.456, 0.005)}
"""Levels -> bits a dimension direct, its deviation, iterative, its deviation: CIFAR-10, thesis,
table 3.2. Of Fashion-MNIST and Omniglot nothing of the kind was published: orderings only."""
RIVALS = ("direct", "direct-longer")
ARMS = (*RIVALS, "iterative")
MEASURES = ("importance", "bound")
BINARY = ("omniglot",)


def images(name: str, split: str, n: int | None) -> Any:
    """Return images of a data set, (N, ...) uint8, in a random order that is always the same."""
    values = data.load(name, split=split)["image"].to_numpy()
    return values[np.random.default_rng(0).permutation(len(values))[:n]]


def unit(name: str) -> str:
    """Return what a data set is measured in."""
    return "nats" if name in BINARY else "bits/dim"


def train_arm(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    name: str,
    arm: Mapping[str, Any],
    training: Mapping[str, Any],
    part: tuple[int, int],
    n_train: int | None,
    n_test: int | None,
    n_importance: int,
) -> None:
    """Train one arm through its part of the epochs; after the last part, measure it."""
    from pcsim.deep.arm_training import train_part
    from pcsim.deep.arms import Arm, evaluate, examples
    from pcsim.deep.outputs import Bernoulli, Gaussian, Output
    from pcsim.deep.training import TrainingSettings
    from pcsim.deep.training_step import binarised

    binary = name in BINARY
    output: Output = (
        Bernoulli()
        if binary
        else Gaussian("feature", link="sigmoid", bin_width=1 / 255, limits=(0.0, 1.0))
    )
    x = examples(images(name, "train", n_train), scale=255.0)
    settings = TrainingSettings(**training)
    model, inference = Arm(**arm).build(x.shape[1], settings.seed, output)
    prepare = binarised if binary else None
    pair = (model, inference)
    trained = train_part(folder, needs, pair, x, settings, part=part, prepare=prepare)
    if part[0] < part[1]:
        return
    seed = 1 if binary else None
    test = examples(images(name, "test", n_test), scale=255.0, binary_seed=seed)
    one = evaluate(model, inference, test, n_samples=settings.n_samples, n_importance=n_importance)
    per = 1.0 if binary else x.shape[1] * math.log(2.0)
    mean = np.mean([one["free_energy"], one["log_likelihood"]], axis=1)
    result = {
        "bound": float(mean[0]) / per, "importance": -float(mean[1]) / per, "unit": unit(name),
        "history": [record["train"] / per for record in trained.history],
        "steps": [value / per for value in one["steps"]], "active_units": one["active_units"],
    }  # fmt: skip
    write_json(folder / "result.json", result)


def cells(settings: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return the data sets and numbers of levels of a run."""
    return [(name, levels) for name in settings["data"] for levels in settings["levels"]]


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return each arm of each data set, depth and seed, in parts that follow one another."""
    out = []
    shared = {key: settings[key] for key in ("n_train", "n_test", "n_importance")}
    for (name, levels), kind in ((c, a) for c in cells(settings) for a in ARMS):
        arm = {
            "inference": kind.removesuffix("-longer"), "n_iterations": settings["n_iterations"],
            "encoding": "gradient" if levels == 1 else "error",
            "normalise_x": kind != "iterative",
            "n_z": settings["n_z"][:levels], "widths": settings["widths"][:levels],
        }  # fmt: skip
        more = settings["n_iterations"] + 1
        weight = float(levels * (1 if kind == "direct" else more))
        for seed in settings["seeds"]:
            training = {"seed": seed, **settings["training"]}
            training["n_epochs"] *= more if kind == "direct-longer" else 1
            kwargs = {"name": name, "arm": arm, **shared, "training": training}
            key = f"{name}/{levels}/{kind}/{seed}"
            whole = Piece(key=key, task=train_arm, kwargs=kwargs, weight=weight)
            out += in_parts(whole, settings["parts"])
    return out


def collect(run: Run) -> None:
    """Write every arm's numbers, and the paired differences beside the published ones."""
    from pcsim.deep.pairs import paired

    settings = run.settings
    rows = ["data,levels,arm,seed,bound,importance,unit,active_units"]
    table = [
        "data,levels,measure,unit,direct_arm,direct,iterative,difference,low,high,n_seeds,ordering,"
        "cifar10_direct,cifar10_iterative"
    ]
    results: dict[str, Any] = {}
    for name, levels in cells(settings):
        found = {
            kind: [
                read_json(
                    run.piece(f"{name}/{levels}/{kind}/{s}/{settings['parts']}") / "result.json"
                )
                for s in settings["seeds"]
            ]
            for kind in ARMS
        }
        results[f"{name}/{levels}"] = found
        for kind, seeds in found.items():
            for seed, one in zip(settings["seeds"], seeds, strict=True):
                units = " ".join(map(str, one["active_units"]))
                numbers = f"{one['bound']:.4f},{one['importance']:.4f},{one['unit']},{units}"
                rows.append(f"{name},{levels},{kind},{seed},{numbers}")
        direct, _, iterative, _ = PUBLISHED[levels]
        for measure, rival in ((m, r) for m in MEASURES for r in RIVALS):
            values = {kind: [one[measure] for one in seeds] for kind, seeds in found.items()}
            pair = paired(values, rival, "iterative")
            # Bits a dimension stand beside nothing in nats; the published epochs were equal.
            shown = (measure, rival, unit(name)) == ("importance", "direct", "bits/dim")
            beside = f"{direct:g},{iterative:g}" if shown else ","
            start = f"{name},{levels},{measure},{unit(name)},{rival}"
            table.append(f"{start},{pair.row},{pair.verdict},{beside}")
    write_text(run.folder / "arms.csv", "\n".join(rows) + "\n")
    write_text(run.folder / "table.csv", "\n".join(table) + "\n")
    write_json(run.folder / "results.json", results)


def figures(run: Run) -> dict[str, Figure]:
    """Draw paired differences and learning, from the saved numbers."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    results = read_json(run.folder / "results.json")
    names = list(run.settings["data"])
    with publication_figure(DOUBLE_COLUMN, 58.0 * len(names)) as figure:
        grid = figure.subplots(len(names), 3, squeeze=False)
        for row, name in zip(grid, names, strict=True):
            found = {levels: results[f"{name}/{levels}"] for levels in run.settings["levels"]}
            draw_differences(row[0], found, name)
            draw_learning(row[1], found, name, run.settings)
            draw_steps(row[2], found, name)
        for ax, letter in zip(grid.flat, "abcdefghi", strict=False):
            ax.set_title(letter, loc="left", fontweight="bold")
    return {"figure": figure}


def draw_differences(ax: Any, found: Mapping[int, Any], name: str) -> None:
    """Draw direct minus iterative of each seed and the interval, by rival and measure."""
    from pcsim.deep.pairs import paired
    from pcsim.plots_style import OKABE_ITO

    equal = {"direct": "epochs", "direct-longer": "compute"}
    places = [(levels, rival) for levels in found for rival in RIVALS]
    for (place, (levels, rival)), measure in ((p, m) for p in enumerate(places) for m in MEASURES):
        values = {kind: [one[measure] for one in v] for kind, v in found[levels].items()}
        pair = paired(values, rival, "iterative")
        first = measure == MEASURES[0]
        x, shade = place + (-0.15 if first else 0.15), OKABE_ITO["black" if first else "orange"]
        each = np.subtract(pair.first, pair.second)
        ax.plot([x - 0.09] * len(each), each, "o", color=shade, ms=2, alpha=0.6)
        half = 0.0 if math.isnan(pair.low) else pair.high - pair.difference
        ax.errorbar(x, pair.difference, half, fmt="o", color=shade, capsize=2, ls="none")
        if not place:
            ax.plot([], [], "o", color=shade, label=measure)
    ax.axhline(0.0, color="0.6", lw=0.6)
    names = [f"equal\n{equal[rival]},\n{n} level{'s' * (n > 1)}" for n, rival in places]
    ax.set_xticks(range(len(places)), names)
    ax.set(xlim=(-0.5, len(places) - 0.5), title=TITLES[name])
    ax.set_ylabel(f"Direct minus iterative ({unit(name)})")
    ax.legend(fontsize=6)


def draw_learning(
    ax: Any, found: Mapping[int, Any], name: str, settings: Mapping[str, Any]
) -> None:
    """Draw the training free energy against what learning costs, a line a seed."""
    for levels, arms in found.items():
        for kind, seeds in arms.items():
            for seed, one in enumerate(seeds):
                style = look(kind, levels)
                label = None if seed else f"{kind}, {levels} level{'s' * (levels > 1)}"
                cost = np.arange(1.0, len(one["history"]) + 1)
                cost *= settings["n_iterations"] + 1 if kind == "iterative" else 1
                # The first epochs of the longer one are those of the other.
                above = 3 if kind == "direct" else 2
                ax.plot(cost, one["history"], lw=0.8, label=label, zorder=above, **style)
    ax.set(xlabel="Evaluations per image", ylabel=f"Training free energy ({unit(name)})")
    ax.legend(fontsize=6)


def draw_steps(ax: Any, found: Mapping[int, Any], name: str) -> None:
    """Draw test free energy over inference iterations, averaged over seeds."""
    for levels, arms in found.items():
        values = np.mean([one["steps"] for one in arms["iterative"]], 0)
        ax.plot(np.arange(len(values)), values, marker="o", **look("iterative", levels))
        for rival in RIVALS:
            level = np.mean([one["steps"][-1] for one in arms[rival]])
            ax.axhline(level, lw=0.8, **look(rival, levels))
    ax.set(xlabel="Inference iteration", ylabel=f"Test free energy ({unit(name)})")


def look(kind: str, levels: int) -> dict[str, Any]:
    """Return colour and line: the colour tells the inference, the line the depth."""
    from pcsim.plots_style import OKABE_ITO

    shade = {"direct": "blue", "direct-longer": "green", "iterative": "black"}[kind]
    return {"color": OKABE_ITO[shade], "ls": "-" if levels == 1 else (0, (4, 1.5))}


EXPERIMENT = Experiment(
    name="iterative_inference_images",
    question="Does iterative inference win on images other than MNIST's digits?",
    scales={
        "quick": {
            "seeds": 3, "data": ("fashion_mnist", "omniglot"), "levels": (1,), "parts": 1,
            "n_z": (16, 8), "widths": ((128, 128), (64, 64)), "n_iterations": 5, "n_train": 5_000,
            "n_test": 400, "n_importance": 100,
            "training": {
                "n_epochs": 5, "learning_rate": 1e-3, "batch_size": 64, "largest_gradient": 5_000.0,
            },
        },
        "full": {
            "seeds": 3, "data": ("fashion_mnist", "omniglot"), "levels": (1, 2), "parts": 4,
            "n_z": (64, 32), "widths": ((512, 512), (256, 256)), "n_iterations": 5,
            "n_train": None, "n_test": 2_000, "n_importance": 1_000,
            "training": {
                "n_epochs": 50, "learning_rate": 2e-4, "batch_size": 64,
                "largest_gradient": 5_000.0,
            },
        },
        "gpu": {
            "seeds": 3, "data": tuple(TITLES), "levels": (1, 2), "parts": 10,
            "n_z": (1024, 512), "widths": ((2048, 2048, 2048), (1024, 1024)), "n_iterations": 5,
            "n_train": None, "n_test": None, "n_importance": 5_000,
            "training": {
                "n_epochs": 500, "learning_rate": 1e-4, "batch_size": 128,
                "largest_gradient": 50_000.0,
            },
        },
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)  # fmt: skip
