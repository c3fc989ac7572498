"""Does iterative inference win on word counts as well? (thesis, table 3.3 and figure 3.8)

Documents of two small collections stand in for RCV1: 20 newsgroups (2,000 words) and BBC news
(2,949 words), under one multinomial decoder. Perplexity by the evidence lower bound and by
importance sampling, beside a unigram model and the published numbers.

Epochs are equal but in "direct-longer", a direct network that may learn as many times longer as
iterative inference evaluates the free energy more often: equal compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcsim import data
from pcsim.experiment import Experiment, Piece, Run, in_parts
from pcsim.messages import refusal
from pcsim.storage import read_json, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

COLLECTIONS = {"newsgroups": "20 newsgroups", "bbc_news": "BBC news"}
PUBLISHED = {"bound": (377.4, 0.5, 314.0, 1.0), "importance": (323.0, 3.0, 285.0, 0.1)}
"""Measure -> direct, its deviation, iterative, its deviation: RCV1, thesis, table 3.3."""
UNIGRAM = {"newsgroups": 1199.0, "bbc_news": 1568.0}
"""Add-one unigram perplexity of the stand-ins, per-document mean, as measured before, for
20 newsgroups on another random division."""
RIVALS = ("direct", "direct-raw", "direct-longer")
ARMS = (*RIVALS, "iterative")
N_TEST_NEWS, N_VALID_NEWS, N_WATCHED = 1_505, 600, 100


def documents(name: str) -> dict[str, Any]:
    """Return the counts of a collection, float32 (document, word), by "train", "valid", "test".

    Of 20 newsgroups only the test set is at hand: it is divided at random, always the same way.
    Documents without a word of the vocabulary are left out.
    """
    if name == "bbc_news":
        parts = {split: data.load(name, split=split) for split in ("train", "valid", "test")}
    else:
        rng = np.random.default_rng(0)
        test, rest = data.divided(data.load(name, split="test"), N_TEST_NEWS, rng=rng)
        valid, train = data.divided(rest, N_VALID_NEWS, rng=rng)
        parts = {"train": train, "valid": valid, "test": test}
    counts = {split: one["count"].to_numpy().astype(np.float32) for split, one in parts.items()}
    return {split: one[one.sum(1) > 0] for split, one in counts.items()}


def unigram(train: Any, test: Any) -> float:
    """Return the per-document perplexity of one distribution of words for all, counts plus one."""
    share = train.sum(0) + 1.0
    log_probability = test @ np.log(share / share.sum())
    return float(np.exp(-(log_probability / test.sum(1)).mean()))


def train_arm(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    collection: str,
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
    from pcsim.deep.evaluation import perplexity
    from pcsim.deep.outputs import Multinomial
    from pcsim.deep.training import TrainingSettings, restore

    found = documents(collection)
    train, valid, test = (
        examples(found[split][:n])
        for split, n in (("train", n_train), ("valid", None), ("test", n_test))
    )
    settings = TrainingSettings(**training)
    model, inference = Arm(**arm).build(train.shape[1], settings.seed, Multinomial())
    trained = train_part(
        folder, needs, (model, inference), train, settings, part=part, validation=valid,
        watched=valid[:N_WATCHED],
    )  # fmt: skip
    if part[0] < part[1]:
        return
    restore(model, inference, folder)
    one = evaluate(
        model, inference, test, n_samples=settings.n_samples, n_importance=n_importance
    )  # fmt: skip
    words = test.sum(1)
    result = {
        "bound": perplexity(-words.new_tensor(one["free_energy"]), words),
        "importance": perplexity(words.new_tensor(one["log_likelihood"]), words),
        "unigram": unigram(found["train"][:n_train], found["test"][:n_test]),
        "best_epoch": trained.best["epoch"], "history": trained.history, "steps": one["steps"],
        "watched": read_json(folder / "watched.json"), "active_units": one["active_units"],
    }  # fmt: skip
    write_json(folder / "result.json", result)


def arm(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an arm's settings; "direct-raw" sees the counts as they are, as the released code."""
    shared = {"n_z": settings["n_z"], "widths": settings["widths"]}
    if name == "iterative":
        return {"n_iterations": settings["n_iterations"], **shared}
    return {"inference": "direct", "normalise_x": name != "direct-raw", **shared}


def evaluations(settings: Mapping[str, Any], name: str) -> int:
    """Return how often an arm evaluates the free energy of a document in an epoch."""
    return settings["n_iterations"] + 1 if name == "iterative" else 1


def learning(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return how an arm learns: of equal compute, with more epochs and more patience."""
    training: dict[str, Any] = dict(settings["training"])
    if name == "direct-longer":
        for limit in {"n_epochs", "patience"} & set(training):
            training[limit] *= evaluations(settings, "iterative")
    return training


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that every piece would fail on."""
    widths, n_levels, n_test = settings["widths"], len(settings["n_z"]), settings["n_test"]
    if len(widths) != n_levels or not all(isinstance(one, tuple | list) for one in widths):
        expected = f"one list of widths for each of {n_levels} levels"
        advice = "Such as --set 'widths=((128, 128),)' for one level."
        raise ValueError(refusal("--set", f"widths {widths!r}", expected, advice))
    if n_test is not None and n_test < 2:
        expected = "2 or more, or None: units are active where they vary with the document"
        raise ValueError(refusal("--set", f"n_test {n_test!r}", expected))
    if "n_epochs" not in settings["training"]:
        found, advice = f"training {settings['training']!r}", "It replaces all of them: give each."
        raise ValueError(refusal("--set", found, "n_epochs and the other settings", advice))


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return each arm of each collection and seed, in parts that follow one another."""
    check(settings)
    out = []
    names = ("n_train", "n_test", "n_importance")
    shared = {name: settings[name] for name in names}
    for collection in settings["collections"]:
        for name, seed in ((a, s) for a in ARMS for s in settings["seeds"]):
            kwargs = {
                "collection": collection, "arm": arm(settings, name), **shared,
                "training": {"seed": seed, **learning(settings, name)},
            }  # fmt: skip
            weight = float(evaluations(settings, name) * kwargs["training"]["n_epochs"])
            key = f"{collection}/{name}/{seed}"
            whole = Piece(key=key, task=train_arm, kwargs=kwargs, weight=weight)
            out += in_parts(whole, settings["parts"])
    return out


def collect(run: Run) -> None:
    """Write every arm's perplexities, and the paired differences beside the published ones."""
    from pcsim.deep.pairs import paired

    settings = run.settings
    rows = ["collection,arm,seed,bound,importance,best_epoch,active_units"]
    table = [
        "collection,measure,direct_arm,direct,iterative,difference,low,high,n_seeds,ordering,"
        "unigram,unigram_reference,rcv1_direct,rcv1_iterative"
    ]
    results: dict[str, dict[str, list[Any]]] = {}
    for collection in settings["collections"]:
        results[collection] = found = {
            name: [
                read_json(run.piece(f"{collection}/{name}/{s}/{settings['parts']}") / "result.json")
                for s in settings["seeds"]
            ]
            for name in ARMS
        }
        for name, seeds in found.items():
            for seed, one in zip(settings["seeds"], seeds, strict=True):
                numbers = f"{one['bound']:.2f},{one['importance']:.2f},{one['best_epoch']}"
                rows.append(f"{collection},{name},{seed},{numbers},{one['active_units'][0]}")
        for measure, (direct, _, iterative, _) in PUBLISHED.items():
            values = {name: [one[measure] for one in seeds] for name, seeds in found.items()}
            for rival in RIVALS:
                pair = paired(values, rival, "iterative")
                beside = f"{found['direct'][0]['unigram']:.1f},{UNIGRAM[collection]:g}"
                table.append(
                    f"{collection},{measure},{rival},{pair.row},{pair.verdict},{beside},"
                    f"{direct:g},{iterative:g}"
                )
    write_text(run.folder / "arms.csv", "\n".join(rows) + "\n")
    write_text(run.folder / "table.csv", "\n".join(table) + "\n")
    write_json(run.folder / "results.json", results)


def figures(run: Run) -> dict[str, Figure]:
    """Draw perplexities and the gradient over training, from the saved numbers."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    results = read_json(run.folder / "results.json")
    with publication_figure(DOUBLE_COLUMN, 62.0 * len(results)) as figure:
        grid = figure.subplots(len(results), 3, squeeze=False)
        for row, (collection, found) in zip(grid, results.items(), strict=True):
            draw_perplexity(row[0], found, COLLECTIONS[collection])
            draw_learning(row[1], found, run.settings)
            draw_gradients(row[2], found["iterative"][0]["watched"])
        for ax, letter in zip(grid.flat, "abcdef", strict=False):
            ax.set_title(letter, loc="left", fontweight="bold")
    return {"figure": figure}


def look(name: str) -> dict[str, Any]:
    """Return the colour and line of an arm."""
    from pcsim.plots_style import OKABE_ITO

    shades = {
        "direct": ("blue", (0, (5, 1.5))), "direct-raw": ("orange", (0, (1, 1))),
        "direct-longer": ("green", (0, (3, 1, 1, 1))),
    }  # fmt: skip
    shade, line = shades.get(name, ("black", "-"))
    return {"color": OKABE_ITO[shade], "ls": line}


def draw_perplexity(ax: Any, found: Mapping[str, Any], title: str) -> None:
    """Draw each seed's perplexity by both measures, seeds joined across arms."""
    places = {"direct-raw": 0, "direct": 1, "direct-longer": 2, "iterative": 3}
    for measure, marker in (("bound", "o"), ("importance", "s")):
        each = np.array([[one[measure] for one in found[name]] for name in places])
        ax.plot(list(places.values()), each, color="0.75", lw=0.6, ls="-")
        for name, values in zip(places, each, strict=True):
            face = look(name)["color"] if measure == "bound" else "white"
            style = {"color": look(name)["color"], "mfc": face, "ls": "none"}
            ax.plot([places[name]] * len(values), values, marker, ms=3.5, **style)
    ax.plot([], [], "o", color="0.3", label="bound")
    ax.plot([], [], "s", color="0.3", mfc="white", label="importance")
    names = ["direct,\nraw", "direct", "direct,\nlonger", "iterative"]
    ax.set_xticks(list(places.values()), names)
    ax.set(ylabel="Test perplexity (per word)", title=title, xlim=(-0.4, 3.4))
    ax.legend(fontsize=6)


def draw_learning(ax: Any, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Draw the validation free energy against what learning costs, a line a seed."""
    for name in ARMS:
        for seed, one in enumerate(found[name]):
            values = [record["validation"] for record in one["history"]]
            cost = np.arange(1, len(values) + 1) * evaluations(settings, name)
            # The first epochs of the longer one are those of the other.
            style = {**look(name), "zorder": 2 if name == "direct-longer" else 3}
            ax.plot(cost, values, lw=0.8, label=None if seed else name, **style)
    ax.set(xlabel="Evaluations per document", ylabel="Validation free energy (nats)")
    ax.legend(fontsize=6)


def draw_gradients(ax: Any, watched: Any) -> None:
    """Draw the size of the gradient in the mean against the epoch, a line an iteration."""
    from matplotlib import colormaps

    sizes = np.array(watched)
    n = sizes.shape[1]
    for step in range(n):
        shade = colormaps["viridis"](0.9 * step / max(n - 1, 1))
        label = "at the prior" if step == 0 else f"after {step}"
        ax.plot(np.arange(1, len(sizes) + 1), sizes[:, step], "-", color=shade, label=label)
    ax.set(xlabel="Epoch", ylabel=r"Mean $|\partial F/\partial\mu|$ (nats)", yscale="log")
    place: dict[str, Any] = {"loc": "center right", "bbox_to_anchor": (1.0, 0.62), "ncols": 2}
    ax.legend(fontsize=6, handlelength=1.2, columnspacing=1.0, **place)


EXPERIMENT = Experiment(
    name="iterative_inference_text",
    question="Does iterative inference win on word counts as well?",
    scales={
        "quick": {
            "seeds": 3, "collections": tuple(COLLECTIONS), "parts": 1, "n_z": (32,),
            "widths": ((128, 128),), "n_iterations": 5, "n_train": None, "n_test": 500,
            "n_importance": 100,
            "training": {
                "n_epochs": 15, "learning_rate": 1e-3, "batch_size": 64, "patience": 4,
                "largest_gradient": 500.0,
            },
        },
        "full": {
            "seeds": 3, "collections": tuple(COLLECTIONS), "parts": 2, "n_z": (128,),
            "widths": ((512, 512),), "n_iterations": 5, "n_train": None, "n_test": None,
            "n_importance": 5_000,
            "training": {
                "n_epochs": 200, "learning_rate": 1e-4, "batch_size": 64, "patience": 10,
                "largest_gradient": 500.0,
            },
        },
        "gpu": {
            "seeds": 5, "collections": tuple(COLLECTIONS), "parts": 1, "n_z": (256,),
            "widths": ((512, 512),), "n_iterations": 5, "n_train": None, "n_test": None,
            "n_importance": 5_000,
            "training": {
                "n_epochs": 500, "learning_rate": 1e-4, "batch_size": 64, "patience": 20,
                "largest_gradient": 500.0,
            },
        },
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)  # fmt: skip
