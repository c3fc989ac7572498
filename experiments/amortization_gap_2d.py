"""How far does a direct estimate miss, and does iteration close the gap? (thesis, figs. 3.1, 3.5)

A model of MNIST with two latents, so that the free energy of a point estimate is a surface to look
at. On it: the estimate of a direct network, gradient ascent, and an iterative network of 16 steps.
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

LIMIT = 5.0
"""The surface covers minus to plus this in both latents."""
N_TEST = 200
N_SHOWN = 3


def explore(
    folder: Path,
    needs: Mapping[str, Path],
    *,
    seed: int,
    n_train: int,
    n_epochs: int,
    n_hidden: int,
    n_iterations: int,
    n_ascent: int,
    spacing: float,
) -> None:
    """Train model and inference, and follow every way to infer on test images."""
    from pcsim.deep.arms import examples
    from pcsim.deep.inference import infer
    from pcsim.deep.inference_gradient import PointEstimate

    images = examples(data.load("mnist")["image"].to_numpy()[:n_train], scale=255.0)
    model, direct, iterative = trained(images, seed, n_epochs, n_hidden, n_iterations)
    test = data.load("mnist", split="test")["image"].to_numpy()[:N_TEST]
    x = examples(test, scale=255.0, binary_seed=1)
    lanes: dict[str, Any] = {
        "direct": direct,
        "iterative": iterative,
        "gradient": PointEstimate(optimiser="adam", step=0.1, n_iterations=n_ascent),
        "preconditioned": PointEstimate(n_iterations=n_ascent),
    }
    axis = np.arange(-LIMIT, LIMIT + spacing / 2, spacing)
    surfaces = [surface(model, x[i : i + 1], axis) for i in range(N_TEST)]
    found: dict[str, Any] = {"axis": axis, "surface": np.round(surfaces[:N_SHOWN], 2)}
    # Not the whole truth (the optimum may lie between points), so ascent goes on from the best.
    found["lowest"] = [float(one.min()) for one in surfaces]
    found["lanes"] = {}
    for name, inference in lanes.items():
        trace = infer(inference, model, x).trace
        paths = path_of(inference, model, x[:N_SHOWN])
        found["lanes"][name] = {"trace": trace.T.tolist(), "path": paths}
    write_json(folder / "result.json", found)


def trained(
    images: Any, seed: int, n_epochs: int, n_hidden: int, n_iterations: int
) -> tuple[Any, Any, Any]:
    """Train a model with direct inference, then an iterative network on that model as it is."""
    from pcsim.deep.encodings import LogSignGradientEncoding
    from pcsim.deep.inference_direct import Direct
    from pcsim.deep.inference_iterative import Iterative
    from pcsim.deep.latent_gaussian import LatentGaussian
    from pcsim.deep.networks import FullyConnected
    from pcsim.deep.posteriors import Point
    from pcsim.deep.training import TrainingSettings, train
    from pcsim.deep.training_step import binarised, generator_for

    generator = generator_for("cpu", seed, 30)
    decoder = FullyConnected(2, [n_hidden, n_hidden], generator=generator)
    model = LatentGaussian(784, (2,), decoders=[decoder], generator=generator)
    network: Any = {"start": Point.at_prior, "widths": [[n_hidden, n_hidden]]}
    direct = Direct(model, generator=generator, **network)
    # Layer normalisation over two latents would leave signs alone: sizes enter as logarithms.
    iterative = Iterative(
        model, encoding=LogSignGradientEncoding(), n_iterations=n_iterations,
        normalise_inputs=False, generator=generator, **network,
    )  # fmt: skip
    settings = TrainingSettings(n_epochs=n_epochs, learning_rate=1e-3, seed=seed)
    train(model, direct, images, settings, prepare=binarised, progress=False)
    model.requires_grad_(False)
    train(model, iterative, images, settings, prepare=binarised, progress=False)
    return model, direct, iterative


def surface(model: Any, x: Any, axis: Any) -> Any:
    """Return the free energy of point estimates on a grid, (y, x)."""
    from pcsim.deep.arms import examples

    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    z = examples(grid)
    likelihood = model.output.log_prob(x, model.output_parameters(z))
    energy = 0.5 * (z**2).sum(-1) + np.log(2 * np.pi) - likelihood
    return energy.detach().numpy().reshape(len(axis), len(axis))


def path_of(inference: Any, model: Any, x: Any) -> list[Any]:
    """Return the estimate at the start and after each iteration, (example, step, 2)."""
    from pcsim.deep.inference import Evaluation

    steps = inference.steps(model, x, Evaluation())
    points = [step.q.parameters[0].detach().numpy() for step in steps]
    return [list(map(list, one)) for one in np.stack(points, 1).astype(float)]


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return one piece a seed."""
    names = ("n_train", "n_epochs", "n_hidden", "n_iterations", "n_ascent", "spacing")
    kwargs = {name: settings[name] for name in names}
    return [
        Piece(key=f"explore/{seed}", task=explore, kwargs={"seed": seed, **kwargs})
        for seed in settings["seeds"]
    ]


def collect(run: Run) -> None:
    """Write how far each way to infer ends above the best that any of them or the grid found."""
    rows = [
        "seed,inference,n_steps,free_energy,gap_mean,gap_median,gap_worst,fraction_within_1_nat"
    ]
    results = {}
    for seed in run.settings["seeds"]:
        found = read_json(run.piece(f"explore/{seed}") / "result.json")
        results[str(seed)] = found
        gaps = gaps_of(found)
        for name, gap in gaps.items():
            trace = np.array(found["lanes"][name]["trace"])
            numbers = (trace[:, -1].mean(), gap.mean(), np.median(gap), gap.max(), (gap < 1).mean())
            text = ",".join(f"{number:.3f}" for number in numbers)
            rows.append(f"{seed},{name},{trace.shape[1] - 1},{text}")
    write_text(run.folder / "gaps.csv", "\n".join(rows) + "\n")
    write_json(run.folder / "results.json", results)


def gaps_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each inference where it ends above the best known, example by example, nats."""
    ends = {name: np.array(lane["trace"])[:, -1] for name, lane in found["lanes"].items()}
    best = np.min([*ends.values(), np.array(found["lowest"])], 0)
    return {name: end - best for name, end in ends.items()}


def figures(run: Run) -> dict[str, Figure]:
    """Draw the figure from the saved numbers."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    found = next(iter(read_json(run.folder / "results.json").values()))
    with publication_figure(DOUBLE_COLUMN, 110.0) as figure:
        rows: Any = figure.subfigures(2, 1, height_ratios=[1.2, 1.0])
        axes = rows[0].subplots(1, N_SHOWN)
        for example, ax in enumerate(axes):
            draw_surface(ax, found, example)
        axes[0].set_ylabel("$z_2$")
        left, right = rows[1].subplots(1, 2)
        draw_traces(left, found)
        draw_gaps(right, found)
    return {"figure": figure}


STYLES: dict[str, dict[str, Any]] = {
    "direct": {"color": "#D55E00", "marker": "o", "ls": "none", "ms": 4},
    "iterative": {"color": "#009E73", "marker": ".", "ls": "-"},
    "gradient": {"color": "#0072B2", "marker": "", "ls": "-."},
    "preconditioned": {"color": "#CC79A7", "marker": "", "ls": "--"},
}


def draw_surface(ax: Any, found: Mapping[str, Any], example: int) -> None:
    """Draw the free energy over the two latents and where each inference went."""
    axis, values = np.array(found["axis"]), np.array(found["surface"][example])
    lowest = values.min()
    # Logarithmic, or the walls would hide the valley.
    ax.contourf(axis, axis, np.log1p(values - lowest), levels=14, cmap="gray_r", alpha=0.7)
    ax.plot(*axis[[values.argmin() % len(axis), values.argmin() // len(axis)]], "x", color="black")
    for name, style in STYLES.items():
        path = np.array(found["lanes"][name]["path"][example])
        ax.plot(path[:, 0], path[:, 1], label=name, lw=0.8, **style)
    ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xlabel="$z_1$", aspect="equal")


def draw_traces(ax: Any, found: Mapping[str, Any]) -> None:
    """Draw the mean distance from the best known over iterations."""
    ends = [np.array(lane["trace"])[:, -1] for lane in found["lanes"].values()]
    best = np.min([*ends, np.array(found["lowest"])], 0)
    for name, style in STYLES.items():
        above = (np.array(found["lanes"][name]["trace"]) - best[:, None]).mean(0)
        if name == "direct":
            ax.axhline(above[0], color=style["color"], ls=":", label=name)
        else:
            ax.plot(above, color=style["color"], ls=style["ls"], label=name)
    ax.set(xlabel="Iteration", ylabel="Free energy above\nthe best known (nats)", yscale="log")
    ax.legend()


def draw_gaps(ax: Any, found: Mapping[str, Any]) -> None:
    """Draw how many examples end within a distance of the best known."""
    for name, gap in gaps_of(found).items():
        fraction = np.arange(1, len(gap) + 1) / len(gap)
        style = STYLES[name]
        ls = ":" if name == "direct" else style["ls"]
        ax.plot(np.sort(gap) + 1e-3, fraction, color=style["color"], ls=ls, label=name)
    ax.set(xlabel="Free energy above the best known (nats)", xscale="log")
    ax.set_ylabel("Fraction of test images")


EXPERIMENT = Experiment(
    name="amortization_gap_2d",
    question="How far does a direct estimate miss, and does iteration close the gap?",
    scales={
        "quick": {
            "seeds": 1, "n_train": 10_000, "n_epochs": 6, "n_hidden": 128, "n_iterations": 16,
            "n_ascent": 100, "spacing": 0.1,
        },
        "full": {
            "seeds": 3, "n_train": 60_000, "n_epochs": 30, "n_hidden": 512, "n_iterations": 16,
            "n_ascent": 300, "spacing": 0.05,
        },
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)  # fmt: skip
