"""Do learned inference weights align with the decoder's transposed Jacobian? (battery, H37)

The average Jacobian of one update of a trained iterative network, dz by the weighted error of the
data, beside the transpose of the decoder's Jacobian, its pseudo-inverse and the preconditioned
gradient. The data are grey images under a Gaussian with one learned precision, for which the angles
do not depend on whether errors are weighted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcsim import data
from pcsim.experiment import Experiment, Piece, Run
from pcsim.storage import read_json, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["EXPERIMENT"]

LANES = {
    "trained": "trained with the model",
    "retrained": "trained on the model as it is",
    "unnormalised": "the same, errors not normalised",
    "shuffled": "trained on others' errors",
    "untrained": "untrained",
}
CONTROLS = ("shuffled", "untrained")
FORMS = ("transpose", "pseudo-inverse", "preconditioned")
FORM_NAMES = {
    "transpose": r"$J^\top$",
    "pseudo-inverse": r"$J^+$",
    "preconditioned": r"$(J^\top\Pi J+\Lambda)^{-1}J^\top$",
}
FALSIFIED, PREDICTED = 80.0, 60.0
"""Degrees to the transpose: reached by the interval, refuted; below, as predicted (H37)."""
N_SHOWN = 5


def train_model(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    arm: Mapping[str, Any],
    training: Mapping[str, Any],
    n_train: int,
) -> None:
    """Train a generative model with its iterative network."""
    from pcsim.deep.arm_training import train_part
    from pcsim.deep.arms import Arm, examples
    from pcsim.deep.outputs import Gaussian
    from pcsim.deep.training import TrainingSettings

    images = examples(data.load("mnist")["image"].to_numpy()[:n_train], scale=255.0)
    settings = TrainingSettings(**training)
    pair = Arm(**arm).build(784, settings.seed, Gaussian("global"))
    trained = train_part(folder, {}, pair, images, settings)
    write_json(folder / "history.json", trained.history)


def compare(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    arm: Mapping[str, Any],
    training: Mapping[str, Any],
    n_train: int,
    n_test: int,
    draws: int,
) -> None:
    """Train the other networks on the model as it is; measure every network's angles."""
    from pcsim.deep.arm_training import restored
    from pcsim.deep.arms import examples
    from pcsim.deep.outputs import Gaussian
    from pcsim.deep.training import TrainingSettings

    (trained,) = needs.values()
    model, first = restored(arm, 784, trained, Gaussian("global"))
    rows = examples(data.load("mnist")["image"].to_numpy()[:n_train], scale=255.0)
    settings = TrainingSettings(**training)
    networks = {"trained": first, **others(model, arm, rows, settings)}
    test = data.load("mnist", split="test")["image"].to_numpy()
    order = np.random.default_rng(0).permutation(len(test))[:n_test]
    x = examples(test[order], scale=255.0)
    found = {name: angles(model, one, x, draws) for name, one in networks.items()}
    write_json(folder / "result.json", found)


def others(model: Any, arm: Mapping[str, Any], x: Any, settings: Any) -> dict[str, Any]:
    """Return the networks that are not trained together with the model."""
    from pcsim.deep.arm_training import train_network
    from pcsim.deep.arms import Arm
    from pcsim.deep.encodings import ErrorEncoding
    from pcsim.deep.transport import ShuffledErrors

    def plain(network: Any) -> None:
        network.normalise_inputs = False

    def shuffle(network: Any) -> None:
        network.encoding = ShuffledErrors()

    found: dict[str, Any] = {"retrained": train_network(model, arm, x, settings)}
    found["unnormalised"] = train_network(model, arm, x, settings, change=plain)
    found["shuffled"] = train_network(model, arm, x, settings, change=shuffle)
    found["shuffled"].encoding = ErrorEncoding(with_x=False)
    found["untrained"] = Arm(**arm).build(784, settings.seed + 1000, model.output)[1]
    return found


def angles(model: Any, inference: Any, x: Any, draws: int) -> dict[str, Any]:
    """Return angles of the average Jacobian to each form, with a bootstrap over images."""
    from pcsim.deep.inference import Evaluation, infer
    from pcsim.deep.training_step import generator_for
    from pcsim.deep.transport import angle, decoder_jacobian, forms, update_jacobian

    evaluation = Evaluation(n_samples=1, generator=generator_for("cpu", 0, 40))
    own, made = [], []
    precision_x = float(model.log_precision_x.exp())
    for step in list(inference.steps(model, x, evaluation))[:-1]:
        own.append(update_jacobian(inference, model, x, step, evaluation).numpy())
        found = forms(decoder_jacobian(model, step.q.mean[0]), precision_x, 1.0)
        made.append({name: one.numpy() for name, one in found.items()})
    energy = infer(inference, model, x, n_samples=5, generator=generator_for("cpu", 0, 41)).trace
    response = np.mean(own, 0)
    result: dict[str, Any] = {"precision_x": precision_x, "free_energy": float(energy[-1].mean())}
    shown = [response.mean(0)[:N_SHOWN]]
    for name in FORMS:
        target = np.mean([one[name] for one in made], 0)
        shown.append(target.mean(0)[:N_SHOWN])
        result[name] = {
            "angle": float(angle(response.mean(0), target.mean(0))),
            "draws": resampled(response, target, draws).round(4),
            "by_iteration": [
                float(angle(b.mean(0), m[name].mean(0))) for b, m in zip(own, made, strict=True)
            ],
            "single_images": float(
                np.mean([angle(b, m[name]) for b, m in zip(own, made, strict=True)])
            ),
        }
    scale = [one / np.abs(one).max(axis=1, keepdims=True) for one in shown]
    return {**result, "shown": np.round(scale, 3)}


def resampled(first: Any, second: Any, draws: int) -> Any:
    """Return the angle between the averages of arrays (N, n_z, n_x) over resampled images."""
    from pcsim.deep.transport import angle

    n = len(first)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), draws) / n
    found = []
    for part in np.array_split(weights.astype(first.dtype), max(1, draws // 50)):
        a, b = (np.tensordot(part, one, 1) for one in (first, second))
        found.append(angle(a, b))
    return np.concatenate(found)


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return a model and a comparison for each seed."""
    arm = {
        "encoding": "error", "with_x": False, "n_iterations": settings["n_trained"],
        "n_z": settings["n_z"], "widths": settings["widths"],
    }  # fmt: skip
    out = []
    for seed in settings["seeds"]:
        training = {"seed": seed, **settings["training"]}
        common = {"arm": arm, "training": training, "n_train": settings["n_train"]}
        out.append(Piece(key=f"model/{seed}", task=train_model, kwargs=common))
        kwargs = {**common, "n_test": settings["n_test"], "draws": settings["draws"]}
        need = (f"model/{seed}",)
        out.append(Piece(key=f"angles/{seed}", task=compare, kwargs=kwargs, needs=need))
    return out


def collect(run: Run) -> None:
    """Write all angles, their table with intervals, and the verdict."""
    results = [read_json(run.piece(f"angles/{s}") / "result.json") for s in run.settings["seeds"]]
    rows = [
        "network,form,angle,low,high,lowest_seed,highest_seed,single_images,free_energy,n_seeds,"
        "reference"
    ]
    summary: dict[str, Any] = {}
    for lane in LANES:
        for form in FORMS:
            summary[f"{lane} {form}"] = one = interval(results, lane, form)
            energy = np.mean([r[lane]["free_energy"] for r in results])
            numbers = [*(f"{v:.2f}" for v in one), f"{energy:.2f}", str(len(results))]
            rows.append(f"{lane},{form},{','.join(numbers)},{reference(lane, form)}")
    difference = paired(results)
    rows.append(
        "trained,transpose minus preconditioned,"
        + ",".join(f"{v:.2f}" for v in difference)
        + f",,,,,{len(results)},above 0 (H37)"
    )
    write_text(run.folder / "table.csv", "\n".join(rows) + "\n")
    outcome = verdict(summary, difference, len(results))
    write_text(run.folder / "verdicts.csv", "verdict,reason\n" + ",".join(outcome) + "\n")
    kept = {
        lane: {
            form: [r[lane][form]["by_iteration"] for r in results] for form in FORMS
        } | {"shown": results[0][lane]["shown"]}
        for lane in LANES
    }  # fmt: skip
    write_json(run.folder / "results.json", {"angles": summary, "lanes": kept})


def reference(lane: str, form: str) -> str:
    """Return what the hypothesis says of one angle."""
    if lane in CONTROLS:
        return "near 90"
    if lane != "trained":
        return ""
    return {
        "transpose": "below 60; refuted from 80",
        "preconditioned": "below the transpose's",
    }.get(form, "")


def interval(results: list[Any], lane: str, form: str) -> list[float]:
    """Return the mean angle, its 95 % interval, lowest and highest seed, and the rest.

    The last number is the mean angle of single images, which averages after taking angles.
    """
    ones = [r[lane][form] for r in results]
    each = [one["angle"] for one in ones]
    single = float(np.mean([one["single_images"] for one in ones]))
    return [*bounded(each, [one["draws"] for one in ones]), min(each), max(each), single]


def bounded(each: Sequence[float], draws: Sequence[Any]) -> list[float]:
    """Return the mean over seeds and the farther ends of its intervals over seeds and images.

    Student's over seeds; over images, which all seeds share, the bootstrap's. An average over fewer
    different images points farther off, so that its draws lie too high; they are moved by their
    mean's distance from the estimate.
    """
    from pcsim.stats import mean_interval

    found = mean_interval(each)
    over_images = np.mean(draws, 0)
    low, high = np.percentile(over_images - over_images.mean(), (2.5, 97.5)) + found.estimate
    if found.n > 1:
        low, high = min(low, found.low), max(high, found.high)
    return [found.estimate, float(low), float(high)]


def paired(results: list[Any]) -> list[float]:
    """Return the trained network's angle to the transpose minus that to the preconditioned form."""
    ones = [[r["trained"][form] for form in ("transpose", "preconditioned")] for r in results]
    each = [a["angle"] - b["angle"] for a, b in ones]
    return bounded(each, [np.subtract(a["draws"], b["draws"]) for a, b in ones])


def verdict(
    summary: Mapping[str, list[float]], difference: list[float], n_seeds: int
) -> tuple[str, str]:
    """Apply H37's rule."""
    from pcsim.verdict import MIN_REPLICAS

    _, low, high, *_ = summary["trained transpose"]
    if n_seeds < MIN_REPLICAS:
        return "INCONCLUSIVE", f"fewer than {MIN_REPLICAS} trained models"
    if high >= FALSIFIED:
        return "REFUTED", "the interval of the angle to the transpose reaches 80 degrees"
    if min(summary[f"{lane} transpose"][1] for lane in CONTROLS) <= high:
        return "NON-SPECIFIC", "a control is as near to the transpose"
    if high < PREDICTED and difference[1] > 0:
        return "SUPPORTED", "below 60 degrees; nearer to the preconditioned form"
    if low >= PREDICTED or difference[2] < 0:
        return "QUALITATIVE", "aligned, but not as near or not in the order predicted"
    return "INCONCLUSIVE", "an interval holds its limit"


def figures(run: Run) -> dict[str, Figure]:
    """Draw angles, their course over iterations, and rows of the maps, from the saved numbers."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    saved = read_json(run.folder / "results.json")
    with publication_figure(DOUBLE_COLUMN, 110.0) as figure:
        rows: Any = figure.subfigures(2, 1, height_ratios=[1.0, 1.15])
        axes = rows[0].subplots(1, 2, width_ratios=[1.35, 1.0])
        draw_angles(axes[0], saved["angles"])
        draw_course(axes[1], saved["lanes"]["trained"])
        draw_maps(rows[1], np.array(saved["lanes"]["trained"]["shown"]))
        axes[0].set_title("a", loc="left", fontweight="bold")
        axes[1].set_title("b", loc="left", fontweight="bold")
        rows[1].suptitle("c", x=0.005, y=0.99, ha="left", va="top", fontweight="bold")
    return {"figure": figure}


def look(form: str) -> dict[str, Any]:
    """Return the colour and the symbol of a form."""
    from pcsim.plots_style import OKABE_ITO

    shade = dict(zip(FORMS, ("blue", "orange", "black"), strict=True))[form]
    return {"color": OKABE_ITO[shade], "marker": dict(zip(FORMS, "os^", strict=True))[form]}


def draw_angles(ax: Any, summary: Mapping[str, Any]) -> None:
    """Draw every network's angles with their intervals and the span of seeds."""
    for place, form in enumerate(FORMS):
        for row, lane in enumerate(LANES):
            middle, low, high, first, last, _ = summary[f"{lane} {form}"]
            y = row + 0.22 * (place - 1)
            kind = look(form)
            ax.plot([first, last], [y, y], color=kind["color"], lw=0.6, ls="-")
            ax.plot([low, high], [y, y], color=kind["color"], lw=2.0, ls="-")
            label = FORM_NAMES[form] if row == 0 else None
            ax.plot(middle, y, ls="none", ms=4, label=label, **kind)
    for limit in (PREDICTED, FALSIFIED, 90.0):
        ax.axvline(limit, color="0.6", lw=0.6, ls=":" if limit < 90 else "-", zorder=0)
    ax.set_yticks(range(len(LANES)), [name.replace(", ", ",\n") for name in LANES.values()])
    ax.set(xlim=(0, 100), ylim=(len(LANES) - 0.5, -0.5), xlabel="Angle of the average (degrees)")
    ax.legend(loc="lower left")


def draw_course(ax: Any, lane: Mapping[str, Any]) -> None:
    """Draw the trained network's angles at each iteration, a thin line a seed."""
    for form in FORMS:
        each = np.array(lane[form])
        k = np.arange(1, each.shape[1] + 1)
        ax.plot(k, each.T, color=look(form)["color"], lw=0.5, ls="-")
        ax.plot(k, each.mean(0), ls="-", label=FORM_NAMES[form], **look(form))
    ax.axhline(90, color="0.6", lw=0.6)
    ax.set(xlabel="Update", ylabel="Angle (degrees)", ylim=(0, 100), xticks=k)


def draw_maps(part: SubFigure, shown: Any) -> None:
    """Draw rows of the average maps as images: what error pattern moves a latent up."""
    side = math.isqrt(shown.shape[-1])
    axes = part.subplots(len(shown), shown.shape[1])
    names = ("learned $B$", *FORM_NAMES.values())
    for (row, column), ax in np.ndenumerate(axes):
        ax.imshow(shown[row, column].reshape(side, side), cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set(xticks=(), yticks=())
        ax.spines[:].set_visible(False)
        if column == 0:
            ax.set_ylabel(names[row], rotation=0, ha="right", va="center")
        if row == 0:
            ax.set_title(f"latent {column + 1}")


EXPERIMENT = Experiment(
    name="weight_transport",
    question="Do learned inference weights align with the decoder's transposed Jacobian?",
    scales={
        "quick": {
            "seeds": 3, "n_z": (16,), "widths": ((128, 128),), "n_trained": 5, "n_train": 8_000,
            "n_test": 100, "draws": 500,
            "training": {"n_epochs": 5, "learning_rate": 1e-3, "batch_size": 64},
        },
        "full": {
            "seeds": 5, "n_z": (32,), "widths": ((512, 512),), "n_trained": 5, "n_train": 60_000,
            "n_test": 500, "draws": 2_000,
            "training": {"n_epochs": 30, "learning_rate": 5e-4, "batch_size": 64},
        },
        "gpu": {
            "seeds": 5, "n_z": (64,), "widths": ((512, 512),), "n_trained": 5, "n_train": 60_000,
            "n_test": 500, "draws": 2_000,
            "training": {"n_epochs": 200, "learning_rate": 2e-4, "batch_size": 64},
        },
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)  # fmt: skip
