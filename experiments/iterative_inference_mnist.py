"""Does an inference network that iterates beat one that does not? (thesis, figs. 3.6-3.9, tab. 3.1)

Direct and iterative amortized inference train the same generative model of MNIST, from the same
weights, with equal samples. Also: inference against gradient-based optimisers on one trained model,
the number of iterations, what the network sees, and the number of samples.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcsim import data
from pcsim.experiment import Experiment, Piece, Run
from pcsim.stats import mean_interval
from pcsim.storage import read_json, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["EXPERIMENT"]

PUBLISHED = {1: (84.14, 0.02, 83.84, 0.05), 2: (82.63, 0.01, 82.457, 0.001)}
"""Levels -> -log p(x) direct, its deviation, iterative, its deviation: thesis, table 3.1, nats."""
ENCODINGS = {
    "gradient": ("gradient", False),
    "gradient, x": ("gradient", True),
    "error": ("error", False),
    "error, x": ("error", True),
    "log-sign, x": ("log_sign", True),
}
OPTIMISERS = {
    "momentum": (0.001, 0.003, 0.01, 0.03),
    "adam": (0.03, 0.1, 0.3),
    "rmsprop": (0.01, 0.03, 0.1),
    "preconditioned": (0.03, 0.1, 0.3, 1.0),
}
"""Rule -> step sizes tried; each is shown at its best."""
SHOWN = (0, 1, 2, 4, 16)
N_RACED, N_SHOWN, N_WATCHED = 50, 6, 100


def train_arm(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    arm: Mapping[str, Any],
    training: Mapping[str, Any],
    part: tuple[int, int],
    n_train: int,
    judged: Mapping[str, int],
) -> None:
    """Train one arm through its part of the epochs; after the last part, measure it."""
    from pcsim.deep.arm_training import train_part
    from pcsim.deep.arms import Arm, evaluate, examples
    from pcsim.deep.training import TrainingSettings
    from pcsim.deep.training_step import binarised, generator_for

    images = examples(data.load("mnist")["image"].to_numpy()[:n_train], scale=255.0)
    settings = TrainingSettings(**training)
    pair = Arm(**arm).build(784, settings.seed)
    seen = binarised(images[:N_WATCHED], generator_for("cpu", 0, 20))
    trained = train_part(
        folder, needs, pair, images, settings, part=part, prepare=binarised, watched=seen
    )
    if part[0] < part[1]:
        return
    test = data.load("mnist", split="test")["image"].to_numpy()
    found = evaluate(
        *pair,
        examples(test[shuffled(len(test))[: judged["n_test"]]], scale=255.0, binary_seed=1),
        n_samples=settings.n_samples,
        n_importance=judged["n_importance"],
        n_gap=judged["n_gap"],
    )
    history = [record["train"] for record in trained.history]
    watched = read_json(folder / "watched.json")
    write_json(folder / "result.json", {**found, "history": history, "watched": watched})


def shuffled(n: int) -> Any:
    """Return an order of the test images, always the same: the file's may not be random."""
    return np.random.default_rng(0).permutation(n)


def race(
    folder: Path, needs: Mapping[str, Path], *, arm: Mapping[str, Any], n_iterations: int
) -> None:
    """Run inference and optimisers on one trained model, timed; keep reconstructions."""
    from pcsim.deep.arms import Arm, examples, timed
    from pcsim.deep.inference import infer
    from pcsim.deep.inference_gradient import GradientAscent
    from pcsim.deep.training import restore
    from pcsim.deep.training_step import generator_for

    (trained,) = needs.values()
    model, inference = Arm(**arm).build(784, 0)
    restore(model, inference, trained)
    test = data.load("mnist", split="test")["image"].to_numpy()
    x = examples(test[shuffled(len(test))[:N_RACED]], scale=255.0, binary_seed=1)
    lanes = {"iterative": (inference, 0.0)}
    for rule, steps in OPTIMISERS.items():
        lanes |= {f"{rule} {s}": (GradientAscent(optimiser=rule, step=s), s) for s in steps}
    result: dict[str, Any] = {}
    for name, (one, step) in lanes.items():
        found = timed(one, model, x, n_iterations=n_iterations, n_samples=5, n_judges=5)
        rule = name.split()[0]
        final = float(np.nan_to_num(found.free_energy[-1], nan=math.inf))
        if rule not in result or final < result[rule]["free_energy"][-1]:
            result[rule] = {
                "step": step,
                "free_energy": found.free_energy.tolist(),
                "seconds": found.seconds.tolist(),
            }
    images = [x[:N_SHOWN].tolist()]
    for n in SHOWN:
        noise = generator_for("cpu", 0, 22)
        q: Any = infer(inference, model, x[:N_SHOWN], n_iterations=n, generator=noise).q
        images.append(model.output.mean(model.output_parameters(q.mean[0])).tolist())
    write_json(folder / "result.json", {"lanes": result, "images": np.round(images, 3)})


def arms(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is trained: name -> the arm, its samples, whether it is a main one."""
    found: dict[str, dict[str, Any]] = {}
    for levels in (1, 2):
        sizes = {"n_z": settings["n_z"][:levels], "widths": settings["widths"][:levels]}
        for kind in ("direct", "iterative"):
            # Two levels see errors, one level gradients, as in the thesis' configurations.
            encoding = "gradient" if levels == 1 else "error"
            arm = {"inference": kind, "n_iterations": 5, "encoding": encoding, **sizes}
            found[f"levels/{levels}/{kind}"] = {"arm": arm, "n_samples": settings["n_samples"]}
    sizes = {"n_z": settings["n_z"][:1], "widths": settings["widths"][:1]}
    for name in settings["encodings"]:
        encoding, with_x = ENCODINGS[name]
        for n in settings["iterations"]:
            arm = {"encoding": encoding, "with_x": with_x, "n_iterations": n, **sizes}
            key = f"encodings/{name.replace(', ', '+')}/{n}"
            found[key] = {"arm": arm, "n_samples": 1}
    for n in settings["samples"]:
        for kind in ("direct", "iterative"):
            arm = {"inference": kind, "n_iterations": 5, **sizes}
            found[f"samples/{kind}/{n}"] = {"arm": arm, "n_samples": n}
    return found


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return the arms, each in parts that follow one another, and the race on one of them."""
    out: list[Piece] = []
    for name, one in arms(settings).items():
        is_main = name.startswith("levels")
        seeds = settings["seeds"] if is_main else settings["seeds"][: settings["minor_seeds"]]
        training = {
            "n_epochs": settings["n_epochs" if is_main else "minor_epochs"],
            "n_samples": one["n_samples"],
            "batch_size": settings["batch_size"],
            "learning_rate": settings["learning_rate"],
        }
        judged = {
            "n_test": settings["n_test"],
            "n_importance": settings["n_importance" if is_main else "n_minor_importance"],
            "n_gap": settings["n_gap"] if is_main else 0,
        }
        cost = one["arm"]["n_iterations"] if one["arm"].get("inference") != "direct" else 1
        for seed in seeds:
            for part in range(1, settings["parts"] + 1):
                key = f"{name}/{seed}/{part}"
                kwargs = {
                    "arm": one["arm"], "training": {"seed": seed, **training},
                    "part": (part, settings["parts"]), "judged": judged,
                    "n_train": settings["n_train" if is_main else "minor_train"],
                }  # fmt: skip
                needs = (f"{name}/{seed}/{part - 1}",) if part > 1 else ()
                out.append(
                    Piece(key=key, task=train_arm, kwargs=kwargs, needs=needs, weight=float(cost))
                )
    longest = raced(settings)
    kwargs = {"arm": arms(settings)[longest]["arm"], "n_iterations": settings["n_raced"]}
    need = f"{longest}/{settings['seeds'][0]}/{settings['parts']}"
    out.append(Piece(key="race", task=race, kwargs=kwargs, needs=(need,)))
    return out


def raced(settings: Mapping[str, Any]) -> str:
    """Return the arm that is run against optimisers: the one with most iterations in training."""
    return f"encodings/gradient+x/{max(settings['iterations'])}"


def collect(run: Run) -> None:
    """Write the results of all arms, and the paired differences beside the published ones."""
    settings = run.settings
    names = ("negative_log_likelihood", "free_energy", "gap", "mutual_information")
    rows = [f"arm,seed,{','.join(names)},active_units"]
    results: dict[str, list[dict[str, Any]]] = {}
    for name in arms(settings):
        is_main = name.startswith("levels")
        for seed in settings["seeds"] if is_main else settings["seeds"][: settings["minor_seeds"]]:
            one = read_json(run.piece(f"{name}/{seed}/{settings['parts']}") / "result.json")
            results.setdefault(name, []).append(one)
            gap = np.mean(one["gap"]) if "gap" in one else math.nan
            numbers = (
                -np.mean(one["log_likelihood"]), np.mean(one["free_energy"]), gap,
                one["mutual_information"],
            )  # fmt: skip
            units = " ".join(map(str, one["active_units"]))
            rows.append(f"{name},{seed},{','.join(f'{v:.3f}' for v in numbers)},{units}")
    write_text(run.folder / "arms.csv", "\n".join(rows) + "\n")
    write_json(run.folder / "results.json", results)
    shutil.copy(run.piece("race") / "result.json", run.folder / "race.json")
    write_text(run.folder / "paired.csv", "\n".join(paired_rows(results)) + "\n")


def paired_rows(results: Mapping[str, Any]) -> list[str]:
    """Return direct minus iterative, paired by seed, with its 95 % interval, nats."""
    rows = [
        "levels,measure,direct,iterative,difference,low,high,n_seeds,"
        "published_direct,published_iterative,published_difference"
    ]
    for levels, (direct, _, iterative, _) in PUBLISHED.items():
        for measure, sign in (("log_likelihood", -1.0), ("free_energy", 1.0)):
            pair = [
                sign
                * np.array([np.mean(one[measure]) for one in results[f"levels/{levels}/{kind}"]])
                for kind in ("direct", "iterative")
            ]
            middle, low, high, _ = mean_interval(pair[0] - pair[1])
            numbers = [pair[0].mean(), pair[1].mean(), middle, low, high]
            label = "negative_log_likelihood" if sign < 0 else measure
            published = (direct, iterative, direct - iterative) if sign < 0 else ("", "", "")
            text = ",".join(f"{number:.3f}" for number in numbers)
            beside = ",".join(f"{one:.3f}" if one != "" else "" for one in published)
            rows.append(f"{levels},{label},{text},{len(pair[0])},{beside}")
    return rows


def figures(run: Run) -> dict[str, Figure]:
    """Draw the figure from the saved numbers."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    results, saved = read_json(run.folder / "results.json"), read_json(run.folder / "race.json")
    with publication_figure(DOUBLE_COLUMN, 165.0) as figure:
        rows: Any = figure.subfigures(3, 1, height_ratios=[1.0, 1.0, 0.9])
        upper, middle, lower = rows
        axes = upper.subplots(1, 3)
        draw_race(axes[:2], saved["lanes"])
        draw_paired(axes[2], results)
        axes = middle.subplots(1, 3)
        draw_encodings(axes[0], results)
        draw_samples(axes[1], results)
        draw_gradients(axes[2], results[raced(run.settings)][0]["watched"])
        draw_images(lower, np.array(saved["images"]))
    return {"figure": figure}


def draw_race(axes: Any, lanes: Mapping[str, Any]) -> None:
    """Draw free energy over iterations and over seconds."""
    best = min(min(one["free_energy"]) for one in lanes.values())
    for name, one in lanes.items():
        above = np.array(one["free_energy"]) - best + 0.1
        label = name if name == "iterative" else f"{name} ({one['step']:g})"
        style: dict[str, Any] = {"color": "black", "ls": "-"} if name == "iterative" else {}
        axes[0].plot(np.arange(len(above)), above, label=label, **style)
        axes[1].plot(np.array(one["seconds"]), above, **style)
    axes[0].set(xlabel="Iteration", ylabel="Free energy above\nthe best + 0.1 (nats)")
    axes[1].set(xlabel="Time (s)", xscale="log")
    for ax in axes:
        ax.set_yscale("log")
    # Room for the legend above the curves.
    axes[0].set_ylim(top=30 * axes[0].get_ylim()[1])
    axes[0].legend(loc="upper right", labelspacing=0.2)


def draw_paired(ax: Any, results: Mapping[str, Any]) -> None:
    """Draw direct minus iterative for each seed, the interval, and the published difference."""
    for levels, (direct, _, iterative, _) in PUBLISHED.items():
        pair = [
            np.array([-np.mean(one["log_likelihood"]) for one in results[f"levels/{levels}/{k}"]])
            for k in ("direct", "iterative")
        ]
        middle, _, high, _ = mean_interval(pair[0] - pair[1])
        ax.plot(np.full(len(pair[0]), levels - 0.1), pair[0] - pair[1], "o", color="grey", ms=2.5)
        half = high - middle if math.isfinite(high) else 0.0
        ax.errorbar(levels, middle, half, fmt="o", color="black", capsize=2)
        ax.plot(levels + 0.1, direct - iterative, "x", color="#D55E00", ms=4)
    ax.axhline(0.0, color="grey", lw=0.5)
    ax.set(xlim=(0.5, 2.5), xticks=(1, 2), xlabel="Levels")
    ax.set_ylabel("Direct minus iterative (nats)\ncross: published")


def draw_encodings(ax: Any, results: Mapping[str, Any]) -> None:
    """Draw the bound against iterations, a line an encoding."""
    for name in ENCODINGS:
        start = f"encodings/{name.replace(', ', '+')}/"
        found = {int(k.removeprefix(start)): v for k, v in results.items() if k.startswith(start)}
        values = [np.mean([np.mean(one["free_energy"]) for one in found[n]]) for n in sorted(found)]
        if values:
            ax.plot(sorted(found), values, "o-", label=name)
    ax.set(xlabel="Iterations in training and test", ylabel="Free energy, test (nats)")
    ax.legend()


def draw_samples(ax: Any, results: Mapping[str, Any]) -> None:
    """Draw the bound against samples, for both inferences."""
    for kind, colour in (("direct", "grey"), ("iterative", "black")):
        start = f"samples/{kind}/"
        found = {int(k.removeprefix(start)): v for k, v in results.items() if k.startswith(start)}
        values = [np.mean([np.mean(one["free_energy"]) for one in found[n]]) for n in sorted(found)]
        ax.plot(sorted(found), values, "o-", color=colour, label=kind)
    ax.set(xlabel="Samples in training and test", ylabel="Free energy, test (nats)")
    ax.legend()


def draw_gradients(ax: Any, watched: Any) -> None:
    """Draw the size of the gradient in the mean against the epoch, a line an iteration."""
    sizes = np.array(watched)
    for step in sorted({0, 1, 2, 4, sizes.shape[1] - 1} & set(range(sizes.shape[1]))):
        ax.plot(np.arange(1, len(sizes) + 1), sizes[:, step], label=f"iteration {step}")
    ax.set(xlabel="Epoch", ylabel="Mean |gradient in the mean|", yscale="log")
    ax.legend()


def draw_images(part: SubFigure, images: Any) -> None:
    """Draw test images and their reconstructions after some iterations."""
    grid = part.subplots(N_SHOWN // 2, 2 * len(images))
    for (row, column), ax in np.ndenumerate(grid):
        block, stage = divmod(column, len(images))
        example = row + block * (N_SHOWN // 2)
        ax.imshow(images[stage, example].reshape(28, 28), cmap="gray", vmin=0, vmax=1)
        ax.set_axis_off()
        if row == 0:
            ax.set_title("image" if stage == 0 else f"{SHOWN[stage - 1]}")


EXPERIMENT = Experiment(
    name="iterative_inference_mnist",
    question="Does an inference network that iterates beat one that does not?",
    scales={
        "quick": {
            "seeds": 3, "minor_seeds": 1, "parts": 1, "n_z": (32, 16),
            "widths": ((256, 256), (128, 128)), "n_samples": 1, "n_train": 10_000, "n_epochs": 8,
            "minor_train": 5_000, "minor_epochs": 5, "n_test": 500, "n_importance": 500,
            "n_minor_importance": 500, "n_gap": 50, "batch_size": 64, "learning_rate": 1e-3,
            "iterations": (1, 5, 16), "encodings": ("gradient", "gradient, x", "error", "error, x"),
            "samples": (1, 5, 20), "n_raced": 60,
        },
        "full": {
            "seeds": 3, "minor_seeds": 1, "parts": 4, "n_z": (64, 32),
            "widths": ((512, 512), (256, 256)), "n_samples": 1, "n_train": 60_000, "n_epochs": 20,
            "minor_train": 10_000, "minor_epochs": 12, "n_test": 1_000, "n_importance": 5_000,
            "n_minor_importance": 500, "n_gap": 200, "batch_size": 64, "learning_rate": 5e-4,
            "iterations": (1, 2, 5, 10, 16), "encodings": tuple(ENCODINGS),
            "samples": (1, 5, 10, 20), "n_raced": 300,
        },
        "gpu": {
            "seeds": 3, "minor_seeds": 3, "parts": 10, "n_z": (64, 32),
            "widths": ((512, 512), (256, 256)), "n_samples": 1, "n_train": 60_000,
            "n_epochs": 1_000, "minor_train": 60_000, "minor_epochs": 200, "n_test": 10_000,
            "n_importance": 5_000, "n_minor_importance": 5_000, "n_gap": 1_000, "batch_size": 64,
            "learning_rate": 2e-4, "iterations": (1, 2, 5, 10, 16), "encodings": tuple(ENCODINGS),
            "samples": (1, 5, 10, 20), "n_raced": 300,
        },
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)  # fmt: skip
