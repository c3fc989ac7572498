"""Does an inference network that iterates beat one that does not? (thesis, figs. 3.6-3.9, tab. 3.1)

Direct and iterative amortized inference train the same generative model of MNIST, from the same
weights, with equal samples. Also: inference against a direct network and gradient-based optimisers
on one trained model, the number of iterations, what the network sees, and the number of samples.

Equal epochs leave two differences: iterative inference sees layer-normalised data, and its training
takes about as many times longer as it evaluates the free energy. A control takes away each.

The learning rate falls by 0.1 % an epoch in every arm. So six times the epochs are six times the
steps but less than six times the summed learning rates: 5.9 times at quick scale (48 epochs against
8), 5.7 at full (120 against 20), and 1.58 at gpu (6,000 against 1,000), where most of the added
epochs move little.
"""

from __future__ import annotations

import csv
import shutil
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

PUBLISHED = {1: (84.14, 83.84), 2: (82.63, 82.457)}
"""Levels -> -log p(x) direct, iterative: thesis, table 3.1, nats, deviations up to 0.05."""
ENCODINGS = {
    "gradient": ("gradient", False),
    "gradient, x": ("gradient", True),
    "error": ("error", False),
    "error, x": ("error", True),
    "log-sign, x": ("log_sign", True),
}
OPTIMISERS = {
    "gradient": (0.002, 0.005, 0.01, 0.02, 0.05),
    "momentum": (0.001, 0.003, 0.01, 0.03),
    "adam": (0.03, 0.1, 0.3, 1.0),
    "rmsprop": (0.01, 0.03, 0.1, 0.3),
    "preconditioned": (0.03, 0.1, 0.3, 1.0),
}
"""Rule -> step sizes tried on validation images."""
CONTROLS = {"direct_normalised": {"normalise_x": True}, "direct_equal_compute": {}}
"""Control -> what differs in its arm from the direct one; the second is trained for longer."""
MEASURE = "negative_log_likelihood"
LABELS = {
    "direct": "equal epochs", "direct_normalised": "the same, normalised data",
    "direct_equal_compute": "equal compute",
}  # fmt: skip
DIRECT = {"inference": "direct", "normalise_x": True}
"""What makes an arm that of the direct network in the race."""
SHOWN = (0, 1, 2, 4, 16)
N_RACED, N_SHOWN, N_WATCHED = 50, 6, 100
N_TUNED, N_VALIDATION, EARLY = 50, 500, 5
"""Test images apart from the raced ones: for step sizes, for the training of the direct network;
and the iteration at which a second, early step is chosen."""


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


def held_out() -> tuple[Any, Any]:
    """Return test images for the race, (N_RACED, 784), and others to choose by."""
    from pcsim.deep.arms import examples

    test = data.load("mnist", split="test")["image"].to_numpy()
    order = shuffled(len(test))[: N_RACED + N_VALIDATION]
    x = examples(test[order], scale=255.0, binary_seed=1)
    return x[:N_RACED], x[N_RACED:]


def train_direct(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    arm: Mapping[str, Any],
    training: Mapping[str, Any],
    n_train: int,
) -> None:
    """Train a direct network on the decoder of a trained model, until validation is no better."""
    from pcsim.deep.arm_training import restored
    from pcsim.deep.arms import Arm, examples
    from pcsim.deep.training import TrainingSettings, train
    from pcsim.deep.training_step import binarised

    (trained,) = needs.values()
    model, _ = restored(arm, 784, trained)
    images = examples(data.load("mnist")["image"].to_numpy()[:n_train], scale=255.0)
    settings = TrainingSettings(**training)
    _, direct = Arm(**{**arm, **DIRECT}).build(784, settings.seed)
    train(
        model, direct, images, settings, validation=held_out()[1], prepare=binarised,
        folder=folder, progress=False,
    )  # fmt: skip


def race(
    folder: Path, needs: Mapping[str, Path], *, arm: Mapping[str, Any], n_iterations: int
) -> None:
    """Run inference and optimisers on one trained model, timed; keep reconstructions."""
    from pcsim.deep.arm_training import restored
    from pcsim.deep.inference import infer
    from pcsim.deep.race_clock import race_lanes, race_table
    from pcsim.deep.training_step import generator_for

    (trained,) = (path for key, path in needs.items() if key != "race_direct")
    model, inference = restored(arm, 784, trained)
    x, validation = held_out()
    direct = restored({**arm, **DIRECT}, 784, needs["race_direct"])[1]
    found, notes = race_lanes(
        model, {"iterative": inference, "direct": direct}, x, validation[:N_TUNED], OPTIMISERS,
        n_iterations=n_iterations, early=EARLY,
    )  # fmt: skip
    write_text(folder / "race.csv", "\n".join(race_table(found, notes)) + "\n")
    images = [x[:N_SHOWN].tolist()]
    for n in SHOWN:
        noise = generator_for("cpu", 0, 22)
        q: Any = infer(inference, model, x[:N_SHOWN], n_iterations=n, generator=noise).q
        images.append(model.output.mean(model.output_parameters(q.mean[0])).tolist())
    drawn = {
        name: {
            "free_energy": one.free_energy, "seconds": one.seconds,
            "at_end": name not in notes or notes[name].at_iteration == n_iterations,
        }
        for name, one in found.items()
    }  # fmt: skip
    write_json(folder / "result.json", {"lanes": drawn, "images": np.round(images, 3)})


def arms(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is trained: name -> the arm, its samples, whether it is a main one."""
    found: dict[str, dict[str, Any]] = {}
    for levels in (1, 2):
        sizes = shape(settings, levels)
        for kind in ("direct", "iterative"):
            # Two levels see errors, one level gradients, as in the thesis' configurations.
            encoding = "gradient" if levels == 1 else "error"
            arm = {"inference": kind, "n_iterations": 5, "encoding": encoding, **sizes}
            found[f"levels/{levels}/{kind}"] = {"arm": arm, "n_samples": settings["n_samples"]}
        for name, change in CONTROLS.items() if levels in settings["control_levels"] else ():
            arm = {"inference": "direct", "n_iterations": 5, **change, **sizes}
            # One free energy at the start and one an iteration, against a single one.
            longer = 6 if name == "direct_equal_compute" else 1
            found[f"controls/{levels}/{name}"] = {
                "arm": arm, "n_samples": settings["n_samples"], "longer": longer,
            }  # fmt: skip
    sizes = shape(settings, 1)
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


def shape(settings: Mapping[str, Any], levels: int) -> dict[str, Any]:
    """Return what the networks of all arms of so many levels share."""
    found = {"n_z": settings["n_z"][:levels], "widths": settings["widths"][:levels]}
    kind = settings["normalization"][levels - 1]
    return found if kind is None else {**found, "normalization": kind}


def learning(settings: Mapping[str, Any], levels: int) -> dict[str, Any]:
    """Return how arms of so many levels learn."""
    return {name: settings[name][levels - 1] for name in ("batch_size", "learning_rate")}


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return the arms, each in parts that follow one another, and the race on one of them."""
    out: list[Piece] = []
    for name, one in arms(settings).items():
        is_main = name.startswith(("levels", "controls"))
        seeds = seeds_of(name, settings)
        training = {
            "n_epochs": settings["n_epochs" if is_main else "minor_epochs"] * one.get("longer", 1),
            "n_samples": one["n_samples"],
            **learning(settings, len(one["arm"]["n_z"])),
        }
        judged = {
            "n_test": settings["n_test"],
            "n_importance": settings["n_importance" if is_main else "n_minor_importance"],
            "n_gap": settings["n_gap"] if is_main else 0,
        }
        n_train = settings["n_train" if is_main else "minor_train"]
        cost = work(one["arm"], n_train, training) / settings["parts"]
        for seed in seeds:
            kwargs = {
                "arm": one["arm"], "training": {"seed": seed, **training}, "judged": judged,
                "n_train": n_train,
            }  # fmt: skip
            whole = Piece(key=f"{name}/{seed}", task=train_arm, kwargs=kwargs, weight=cost)
            out += in_parts(whole, settings["parts"])
    return [*out, *race_pieces(settings)]


def work(arm: Mapping[str, Any], n_train: int, training: Mapping[str, Any]) -> float:
    """Return about how long training takes: the free energies it looks at, dearer with samples."""
    evaluations = 1 if arm.get("inference") == "direct" else arm["n_iterations"] + 1
    share: float = (1.0 + training["n_samples"] / 5) / 1e5
    return n_train * int(training["n_epochs"]) * evaluations * share


def race_pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return the training of a direct network on the raced arm's decoder, and the race."""
    longest, seed = raced(settings), settings["seeds"][0]
    arm = arms(settings)[longest]["arm"]
    training = {
        # No longer than the iterative network's, by evaluations of the free energy.
        "n_epochs": settings["minor_epochs"] * (arm["n_iterations"] + 1), "patience": 10,
        "seed": seed, **learning(settings, 1),
    }  # fmt: skip
    need = f"{longest}/{seed}/{settings['parts']}"
    first = {"arm": arm, "training": training, "n_train": settings["minor_train"]}
    second = {"arm": arm, "n_iterations": settings["n_raced"]}
    needs = (need, "race_direct")
    # One after the other, they would be waited for if they were not begun early.
    short = {"n_epochs": settings["minor_epochs"], "n_samples": 1}
    cost = work(arm, settings["minor_train"], short)
    return [
        Piece(key="race_direct", task=train_direct, kwargs=first, needs=(need,), weight=cost),
        Piece(key="race", task=race, kwargs=second, needs=needs, weight=cost),
    ]


def seeds_of(name: str, settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the seeds of an arm: all for the comparison."""
    seeds: tuple[int, ...] = settings["seeds"]
    if name.startswith("levels"):
        return seeds
    return seeds[: settings["control_seeds" if name.startswith("controls") else "minor_seeds"]]


def raced(settings: Mapping[str, Any]) -> str:
    """Return the arm that is run against optimisers: the one with most iterations in training."""
    return f"encodings/gradient+x/{max(settings['iterations'])}"


def collect(run: Run) -> None:
    """Write the arms that are there, and their paired differences beside published ones."""
    from pcsim.deep.arm_tables import arm_rows, comparison_rows, in_order

    results: dict[str, dict[int, Any]] = {}
    for key, folder in run.pieces.items():
        if (folder / "result.json").is_file() and key not in ("race", "race_direct"):
            name, seed, _ = key.rsplit("/", 2)  # the last part alone leaves a result
            results.setdefault(name, {})[int(seed)] = read_json(folder / "result.json")
    results = {name: results[name] for name in sorted(results, key=in_order)}
    write_text(run.folder / "arms.csv", "\n".join(arm_rows(results)) + "\n")
    rows = comparison_rows(results, PUBLISHED, tuple(CONTROLS))
    write_text(run.folder / "paired.csv", "\n".join(rows) + "\n")
    plain = {name: list(by_seed.values()) for name, by_seed in results.items()}
    write_json(run.folder / "results.json", plain)
    found = run.pieces.get("race")
    if found is not None and found.is_dir():
        shutil.copy(found / "result.json", run.folder / "race.json")
        if (found / "race.csv").is_file():
            shutil.copy(found / "race.csv", run.folder / "race.csv")


def figures(run: Run) -> dict[str, Figure]:
    """Draw the figure from the saved numbers."""
    from pcsim import plots_amortized as draw
    from pcsim.deep.arm_tables import bounds_by_number
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    results, saved = read_json(run.folder / "results.json"), read_json(run.folder / "race.json")
    with (run.folder / "paired.csv").open(encoding="utf-8") as file:
        pairs = [row for row in csv.DictReader(file) if row["measure"] == MEASURE]
    with publication_figure(DOUBLE_COLUMN, 165.0) as figure:
        rows: Any = figure.subfigures(3, 1, height_ratios=[1.0, 1.0, 0.9])
        upper, middle, lower = rows
        axes = upper.subplots(1, 3)
        draw.race(axes[:2], saved["lanes"])
        draw.paired(axes[2], pairs, LABELS)
        axes = middle.subplots(1, 3)
        starts = {name: f"encodings/{name.replace(', ', '+')}/" for name in ENCODINGS}
        draw.bounds(axes[0], bounds_by_number(results, starts), "Iterations in training and test")
        starts = {kind: f"samples/{kind}/" for kind in ("direct", "iterative")}
        draw.bounds(axes[1], bounds_by_number(results, starts), "Samples in training and test")
        draw.gradients(axes[2], results[raced(run.settings)][0]["watched"])
        draw.images(lower, np.array(saved["images"]), SHOWN)
    return {"figure": figure}


FULL = {
    "seeds": 3, "minor_seeds": 1, "control_seeds": 3, "control_levels": (1, 2), "parts": 4,
    "n_z": (64, 32), "widths": ((512, 512), (256, 256)), "n_samples": 1, "n_train": 60_000,
    "n_epochs": 20, "minor_train": 10_000, "minor_epochs": 12, "n_test": 1_000,
    "n_importance": 5_000, "n_minor_importance": 500, "n_gap": 200, "batch_size": (64, 256),
    "learning_rate": (5e-4, 2e-4), "normalization": (None, "batch"),
    "iterations": (1, 2, 5, 10, 16), "encodings": tuple(ENCODINGS), "samples": (1, 5, 10, 20),
    "n_raced": 300,
}  # fmt: skip
"""Of one level and of two, n_z and widths by level: two learn as in the released configurations."""
GPU = {
    **FULL, "minor_seeds": 3, "parts": 10, "n_epochs": 1_000, "minor_train": 60_000,
    "minor_epochs": 200, "n_test": 10_000, "n_minor_importance": 5_000, "n_gap": 1_000,
    "learning_rate": (2e-4, 2e-4),
}  # fmt: skip

EXPERIMENT = Experiment(
    name="iterative_inference_mnist",
    question="Does an inference network that iterates beat one that does not?",
    scales={
        "quick": {
            "seeds": 3, "minor_seeds": 1, "control_seeds": 1, "control_levels": (1,), "parts": 1,
            "n_z": (32, 16), "widths": ((256, 256), (128, 128)), "n_samples": 1, "n_train": 10_000,
            "n_epochs": 8, "minor_train": 5_000, "minor_epochs": 5, "n_test": 500,
            "n_importance": 500, "n_minor_importance": 500, "n_gap": 50, "batch_size": (64, 64),
            "learning_rate": (1e-3, 1e-3), "normalization": (None, None), "iterations": (1, 5, 16),
            "encodings": ("gradient", "gradient, x", "error", "error, x"),
            "samples": (1, 5, 20), "n_raced": 60,
        },
        "full": FULL,
        "gpu": GPU,
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
    gathers_parts=True,
)  # fmt: skip
