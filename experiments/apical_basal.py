"""Can errors from below and from the own level be kept apart in inference? (battery, H36; fig. 8.6)

A two-level model of MNIST is trained three times over: with an update network whose basal stream
sees errors from below, whose apical stream sees all that belongs to the level, and in which the two
meet only in a sum; with an unconstrained network of as many units; and with the thesis' gated one.
How much of the learned update is an interaction of the two errors, and what does separation cost?
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcsim import data
from pcsim.experiment import Experiment, Piece, Run
from pcsim.storage import read_json, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

ARMS: dict[str, dict[str, Any]] = {
    "segregated": {"update": "additive", "segregated": True},
    "unconstrained": {"update": "additive"},
    "gated": {"update": "gated"},
}
COST_LIMIT = 2.0
"""Per cent of the evidence lower bound that separation may cost: H36."""


def train_arm(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    arm: Mapping[str, Any],
    training: Mapping[str, Any],
    n_train: int,
    n_test: int,
    n_importance: int,
    n_crossed: int,
) -> None:
    """Train one arm; measure its bound and the interaction in its update, trained and untrained."""
    from pcsim.deep.arm_training import train_part
    from pcsim.deep.arms import Arm, evaluate, examples
    from pcsim.deep.training import TrainingSettings
    from pcsim.deep.training_step import binarised

    images = examples(data.load("mnist")["image"].to_numpy()[:n_train], scale=255.0)
    test = data.load("mnist", split="test")["image"].to_numpy()
    order = np.random.default_rng(0).permutation(len(test))[:n_test]
    x = examples(test[order], scale=255.0, binary_seed=1)
    settings = TrainingSettings(**training)
    model, inference = Arm(**arm).build(784, settings.seed)
    trained = train_part(folder, {}, (model, inference), images, settings, prepare=binarised)
    found = evaluate(
        model, inference, x, n_samples=settings.n_samples, n_importance=n_importance
    )  # fmt: skip
    fresh: Any = Arm(**arm).build(784, settings.seed + 1000)[1]
    result = {
        "free_energy": float(np.mean(found["free_energy"])),
        "negative_log_likelihood": -float(np.mean(found["log_likelihood"])),
        "history": [record["train"] for record in trained.history],
        "n_weights": sum(one.numel() for one in fresh.parameters()),
        "interaction": crossed(model, inference, inference, x[:n_crossed]),
        "interaction_untrained": crossed(model, inference, fresh, x[:n_crossed]),
    }
    write_json(folder / "result.json", result)


def crossed(model: Any, inference: Any, update: Any, x: Any) -> list[list[float]]:
    """Return shares of variance of each update of level 1's mean: below, own, interaction.

    The states are those that `inference` goes through. At each, the error from below of every
    example meets the own error and estimate of every other, and `update` is asked for its step.
    """
    from pcsim.deep.inference import Evaluation
    from pcsim.deep.streams import crossed_updates, variance_shares
    from pcsim.deep.training_step import generator_for

    evaluation = Evaluation(generator=generator_for("cpu", 0, 50))
    shares = []
    # At the prior all examples share one estimate and one own error: nothing to cross.
    for step in list(inference.steps(model, x, evaluation))[1:-1]:
        steps = crossed_updates(update, model, x, step, evaluation)
        shares.append(list(variance_shares(steps.numpy())))
    return shares


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return each arm for each seed."""
    shared = {
        "encoding": "error", "with_x": False, "n_z": settings["n_z"],
        "widths": settings["widths"], "n_iterations": settings["n_iterations"],
    }  # fmt: skip
    names = ("n_train", "n_test", "n_importance", "n_crossed")
    sizes = {name: settings[name] for name in names}
    return [
        Piece(
            key=f"{name}/{seed}",
            task=train_arm,
            kwargs={
                "arm": {**shared, **arm},
                "training": {"seed": seed, **settings["training"]},
                **sizes,
            },
        )
        for name, arm in ARMS.items()
        for seed in settings["seeds"]
    ]


def collect(run: Run) -> None:
    """Write bounds, their paired differences, shares of variance, and the verdict."""
    results = {
        name: [read_json(run.piece(f"{name}/{s}") / "result.json") for s in run.settings["seeds"]]
        for name in ARMS
    }
    rows = ["arm,quantity,mean,low,high,lowest,highest,n_seeds,reference"]
    for name, seeds in results.items():
        for quantity, values in quantities(seeds).items():
            rows.append(f"{name},{quantity},{described(values)},")
    for rival in ("unconstrained", "gated"):
        values = cost(results, rival)
        limit = "below 2 (H36)" if rival == "unconstrained" else ""
        rows.append(f"segregated against {rival},cost_per_cent,{described(values)},{limit}")
    write_text(run.folder / "table.csv", "\n".join(rows) + "\n")
    outcome = ",".join(verdict(cost(results, "unconstrained")))
    write_text(run.folder / "verdicts.csv", f"verdict,reason\n{outcome}\n")
    write_json(run.folder / "results.json", results)


def quantities(seeds: list[Any]) -> dict[str, list[float]]:
    """Return what the table says of an arm: name -> a value a seed."""
    found = {
        name: [one[name] for one in seeds]
        for name in ("free_energy", "negative_log_likelihood", "n_weights")
    }
    for state, key in (("", "interaction"), ("_untrained", "interaction_untrained")):
        shares = np.array([np.mean(one[key], 0) for one in seeds])
        for place, part in enumerate(("below", "own", "interaction")):
            found[f"share_{part}{state}"] = shares[:, place].tolist()
    return found


def cost(results: Mapping[str, Any], rival: str) -> list[float]:
    """Return by how many per cent the segregated bound is worse, seed by seed."""
    pairs = zip(results["segregated"], results[rival], strict=True)
    return [100 * (a["free_energy"] - b["free_energy"]) / b["free_energy"] for a, b in pairs]


def described(values: list[float]) -> str:
    """Return mean, Student's 95 % interval over seeds, extremes and the number, comma-separated."""
    from pcsim.stats import mean_interval

    ends = ["", ""]
    if len(values) > 1:
        ends = [f"{one:.5g}" for one in mean_interval(np.array(values))[1:3]]
    numbers = (f"{np.mean(values):.5g}", *ends, f"{min(values):.5g}", f"{max(values):.5g}")
    return ",".join((*numbers, str(len(values))))


def verdict(values: list[float]) -> tuple[str, str]:
    """Apply H36's rule to what separation costs."""
    from pcsim.stats import mean_interval
    from pcsim.verdict import MIN_REPLICAS

    if len(values) < MIN_REPLICAS:
        return "INCONCLUSIVE", f"fewer than {MIN_REPLICAS} trained models"
    _, low, high, _ = mean_interval(np.array(values))
    if low > COST_LIMIT:
        return "REFUTED", "separation costs more than 2 % of the bound"
    if high < COST_LIMIT:
        return "SUPPORTED", "separation costs less than 2 % of the bound"
    return "INCONCLUSIVE", "the interval of the cost holds 2 %"


def figures(run: Run) -> dict[str, Figure]:
    """Draw bounds, what separation costs, and shares of variance, from the saved numbers."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    results = read_json(run.folder / "results.json")
    with publication_figure(DOUBLE_COLUMN, 62.0) as figure:
        axes = figure.subplots(1, 3, width_ratios=[1.05, 0.85, 1.15])
        draw_bounds(axes[0], results)
        draw_cost(axes[1], results)
        draw_shares(axes[2], results)
        figure.legend(*axes[2].get_legend_handles_labels(), loc="outside upper right", ncols=3)
        for ax, letter in zip(axes, "abc", strict=True):
            ax.set_title(letter, loc="left", fontweight="bold")
    return {"figure": figure}


def draw_bounds(ax: Any, results: Mapping[str, Any]) -> None:
    """Draw each arm's test free energy, seeds joined across arms."""
    each = np.array([[one["free_energy"] for one in results[name]] for name in ARMS])
    ax.plot(range(len(ARMS)), each, color="0.75", lw=0.6, ls="-")
    for place, values in enumerate(each):
        ax.plot([place] * len(values), values, "o", color="black", ms=3.5)
    ax.set_xticks(range(len(ARMS)), list(ARMS), fontsize=6)
    ax.set(ylabel="Test free energy (nats)", xlim=(-0.4, len(ARMS) - 0.6))


def draw_cost(ax: Any, results: Mapping[str, Any]) -> None:
    """Draw what separation costs, each seed and the interval, and the limit."""
    from pcsim.plots_style import OKABE_ITO
    from pcsim.stats import mean_interval

    for place, rival in enumerate(("unconstrained", "gated")):
        values = cost(results, rival)
        ax.plot(np.full(len(values), place - 0.12), values, "o", color="0.6", ms=3)
        if len(values) > 1:
            middle, low, high, _ = mean_interval(np.array(values))
            ends = [[middle - low], [high - middle]]
            ax.errorbar(place + 0.05, middle, ends, fmt="o", color="black", capsize=2, ls="none")
    ax.axhline(0, color="0.6", lw=0.6)
    ax.axhline(COST_LIMIT, color=OKABE_ITO["vermillion"], lw=0.8, ls=":")
    ax.set_xlabel(f"dotted: {COST_LIMIT:g} %, refuted above", color=OKABE_ITO["vermillion"])
    ax.set_xticks((0, 1), ("against\nunconstrained", "against\ngated"))
    ax.set(ylabel="Cost of separation (% of the bound)", xlim=(-0.5, 1.5))


def draw_shares(ax: Any, results: Mapping[str, Any]) -> None:
    """Draw shares of variance of the update as stacked bars, trained beside untrained."""
    from pcsim.plots_style import OKABE_ITO

    parts = {"from below": "sky", "own level": "blue", "interaction": "vermillion"}
    for place, name in enumerate(ARMS):
        for key, shift in (("interaction", -0.2), ("interaction_untrained", 0.2)):
            values = np.mean([np.mean(one[key], 0) for one in results[name]], 0)
            start = 0.0
            for (part, shade), value in zip(parts.items(), values, strict=True):
                label = part if place == 0 and key == "interaction" else None
                face = {"color": OKABE_ITO[shade], "alpha": 1.0 if shift < 0 else 0.5}
                ax.bar(place + shift, 100 * value, 0.36, bottom=start, label=label, **face)
                start += 100 * value
            ax.text(place + shift, 101, f"{100 * values[2]:.1f}", ha="center", fontsize=6)
    ax.set_xticks(range(len(ARMS)), list(ARMS))
    ax.set(
        ylabel="Variance of the update (%)",
        xlabel="left trained, right (pale) untrained",
        ylim=(0, 108),
    )


EXPERIMENT = Experiment(
    name="apical_basal",
    question="Can errors from below and from the own level be kept apart in inference?",
    scales={
        "quick": {
            "seeds": 3, "n_z": (16, 8), "widths": ((128, 128), (32, 32)), "n_iterations": 5,
            "n_train": 6_000, "n_test": 500, "n_importance": 100, "n_crossed": 60,
            "training": {
                "n_epochs": 6, "learning_rate": 1e-3, "batch_size": 64, "largest_gradient": 500.0,
            },
        },
        "full": {
            "seeds": 5, "n_z": (64, 32), "widths": ((512, 512), (256, 256)), "n_iterations": 5,
            "n_train": 60_000, "n_test": 2_000, "n_importance": 1_000, "n_crossed": 100,
            "training": {
                "n_epochs": 30, "learning_rate": 5e-4, "batch_size": 64, "largest_gradient": 500.0,
            },
        },
        "gpu": {
            "seeds": 5, "n_z": (64, 32), "widths": ((512, 512), (256, 256)), "n_iterations": 5,
            "n_train": 60_000, "n_test": 10_000, "n_importance": 5_000, "n_crossed": 100,
            "training": {
                "n_epochs": 300, "learning_rate": 2e-4, "batch_size": 64,
                "largest_gradient": 500.0,
            },
        },
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)  # fmt: skip
