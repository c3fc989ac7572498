"""Where do errors go forward in gamma and estimates come back in beta? A map of the column.

The laminar column is shown natural input in noise, at many ratios of the time constants of its
estimates and errors and many conduction delays. Granger causality between the potentials of errors
and of estimates one area up gives the asymmetry DAI(gamma) - DAI(beta) of each circuit (H31), and
phase-randomised potentials the level that chance reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.experiment import Experiment, Piece, Run
from pcsim.measures import phase_randomised
from pcsim.protocols import (
    RHYTHM_BANDS,
    error_estimate_pairs,
    noisy_movies,
    pair_influence,
    pair_potentials,
    steady_responses,
)
from pcsim.roster import load_model, save_model, train, variant
from pcsim.storage import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT"]

COLUMN = "COLUMN"
RATIOS = (1.0, 2.0, 4.0, 8.0, 14.0, 28.0)
"""Time constant of estimates, 28 ms, over that of errors; 14 is the canonical microcircuit's."""
DELAYS = (0.0, 4.0, 8.0, 12.0, 16.0)
"""Between areas, milliseconds, forward and backward alike; 8 is the column's."""
CENTRE = {"ratio": 14.0, "delay": 8.0}
ONSET, NOISE = 0.5, 0.5
N_SURROGATES = 4
LEVEL = 0.95
HIGHEST = 100.0


def train_column(folder: Path, needs: Mapping[str, Path], *, seed: int) -> None:
    """Train one replica of the column on natural images."""
    column = variant(COLUMN)
    save_model(train(column, seed=seed), folder / "model", column.circuit)


def map_delay(
    folder: Path, needs: Mapping[str, Path], *, seed: int, delay: float, n: int, duration: float
) -> None:
    """Run the column at one delay and all ratios in a batch; keep causality and asymmetry."""
    (trained,) = needs.values()
    model: Any = load_model(trained / "model")
    seconds = 1e-3 * delay
    circuits = [
        replace(
            model, tau_error=model.tau_latent / ratio, delay_forward=seconds,
            delay_backward=seconds,
        )
        for ratio in RATIOS
    ]  # fmt: skip
    pairs = error_estimate_pairs(model)
    movies = noisy_movies(model, n=n, duration=ONSET + duration, seed=seed)
    found = steady_responses(
        circuits, movies, levels=list(pairs), onset=ONSET, noise=NOISE, seed=seed
    )
    names = [f"{below} to {above}" for below, above in pairs.values()]
    cells = []
    for one in found:
        rows = [measured(one, level, seed) for level in pairs]
        cells.append(xr.concat(rows, xr.Variable("pair", names), join="outer"))
    result = xr.concat(cells, xr.Variable("ratio", list(RATIOS)), join="outer")
    result.assign_coords(delay=delay).to_netcdf(folder / "result.nc", engine="h5netcdf")


def measured(responses: xr.Dataset | None, level: int, seed: int) -> xr.Dataset:
    """Return influence in a pair and that in its surrogates; nothing if the circuit diverged."""
    if responses is None:
        return xr.Dataset({"detected": False, "steady": False})
    potentials = pair_potentials(responses, level)
    found = pair_influence(potentials)
    seeds = range(100 * seed, 100 * seed + N_SURROGATES)
    made = [pair_influence(phase_randomised(potentials, seed=one)) for one in seeds]
    return found.assign(
        surrogate=("draw", [float(one["index"].sel(band="difference")) for one in made]),
        granger_surrogate=made[0]["granger"],
    )


def pieces(settings: Mapping[str, Any]) -> list[Piece]:
    """Return a training for each seed, and a row of the map for each seed and delay."""
    out = []
    for seed in settings["seeds"]:
        out.append(Piece(key=f"train/{seed}", task=train_column, kwargs={"seed": seed}))
        for delay in DELAYS:
            kwargs = {
                "seed": seed, "delay": delay, "n": settings["n_trials"],
                "duration": settings["duration"],
            }  # fmt: skip
            key = f"map/{seed}/{delay:g}"
            out.append(Piece(key=key, task=map_delay, kwargs=kwargs, needs=(f"train/{seed}",)))
    return out


def collect(run: Run) -> None:
    """Stack replicas and delays into one file and write the map as a table."""
    replicas = []
    for seed in run.settings["seeds"]:
        rows = []
        for delay in DELAYS:
            path = run.piece(f"map/{seed}/{delay:g}") / "result.nc"
            with xr.open_dataset(path, engine="h5netcdf") as one:
                rows.append(one.load())
        replicas.append(xr.concat(rows, "delay", join="outer"))
    result = xr.concat(replicas, xr.Variable("replica", list(run.settings["seeds"])), join="outer")
    with atomic_path(run.folder / "rhythm.nc") as part:
        result.to_netcdf(part, engine="h5netcdf")
    level, cells = chance(result), asymmetry(result)
    lines = ["ratio,delay_ms,asymmetry,lowest,highest,n_replicas,chance,holds"]
    for ratio in RATIOS:
        for delay in DELAYS:
            values = cells.sel(ratio=ratio, delay=delay).to_numpy()
            values = values[np.isfinite(values)]
            numbers: tuple[float, ...] = ()
            if values.size:
                numbers = (values.mean(), values.min(), values.max())
            text = ",".join(f"{one:.6g}" for one in numbers) or ",,"
            holds = int(values.size > 0 and numbers[0] > level)
            lines.append(f"{ratio:g},{delay:g},{text},{values.size},{level:.6g},{holds}")
    write_text(run.folder / "table.csv", "\n".join(lines) + "\n")


def asymmetry(result: xr.Dataset) -> xr.DataArray:
    """Return DAI(gamma) - DAI(beta) averaged over the pairs with a detected influence.

    NaN where there is none, or where a pair has no steady state.
    """
    difference = result["index"].sel(band="difference", drop=True)
    detected = result["detected"].astype(bool)
    return difference.where(detected).where(result["steady"].all("pair")).mean("pair")


def chance(result: xr.Dataset) -> float:
    """Return what surrogates of the same pairs and replicas exceed in 5 % of cells; 0 if none."""
    made = result["surrogate"].where(result["detected"].astype(bool)).mean("pair").mean("replica")
    values = made.to_numpy().ravel()
    values = values[np.isfinite(values)]
    return float(np.quantile(values, LEVEL)) if values.size else 0.0


def figures(run: Run) -> dict[str, Figure]:
    """Draw the map, and the spectra of the column as it stands and without fast errors."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure

    with (
        xr.open_dataset(run.folder / "rhythm.nc", engine="h5netcdf") as result,
        publication_figure(DOUBLE_COLUMN, 62.0) as figure,
    ):
        axes: Sequence[Axes] = figure.subplots(1, 3, width_ratios=[1.15, 1.0, 1.0])
        draw_map(axes[0], result)
        draw_causality(axes[1], result)
        draw_index(axes[2], result)
        for ax, letter in zip(axes, "abc", strict=True):
            ax.set_title(letter, loc="left", fontweight="bold")
    return {"figure": figure}


def draw_map(ax: Axes, result: xr.Dataset) -> None:
    """Draw the asymmetry of every circuit, dots beyond chance; grey without any influence."""
    cells = asymmetry(result).mean("replica").transpose("delay", "ratio")
    values, level = cells.to_numpy(), chance(result)
    limit = max(float(np.abs(values[np.isfinite(values)]).max(initial=0.0)), 0.1)
    image = ax.imshow(values, origin="lower", aspect="auto", cmap="PuOr_r", vmin=-limit, vmax=limit)
    ax.set_facecolor("#D0D0D0")
    y, x = np.nonzero(np.abs(np.nan_to_num(values)) > level)
    ax.plot(x, y, ".", color="black", markersize=4)
    ax.set_title("dot: beyond chance", loc="right", fontsize=6)
    place = list(RATIOS).index(CENTRE["ratio"]), list(DELAYS).index(CENTRE["delay"])
    ax.plot(*place, "s", markersize=11, markerfacecolor="none", color="black", linewidth=0.8)
    ax.set_xticks(range(len(RATIOS)), [f"{ratio:g}" for ratio in RATIOS])
    ax.set_yticks(range(len(DELAYS)), [f"{delay:g}" for delay in DELAYS])
    ax.set_xlabel("Time constant, estimates / errors")
    ax.set_ylabel("Delay between areas (ms)")
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("DAI(gamma) \N{MINUS SIGN} DAI(beta)")
    for sign in (-1.0, 1.0):
        bar.ax.axhline(sign * level, color="black", linewidth=0.8, linestyle=":")


def shade_bands(ax: Axes) -> None:
    """Shade the two bands and name them."""
    from pcsim.plots import colour

    for name, band in RHYTHM_BANDS.items():
        ax.axvspan(*band, color=colour("control"), alpha=0.15, linewidth=0)
        ax.annotate(
            rf"$\{name}$", (sum(band) / 2, 0.99), xycoords=("data", "axes fraction"), ha="center",
            va="top",
        )  # fmt: skip
    ax.set_xlim(2.0, HIGHEST)
    ax.set_xlabel("Frequency (Hz)")


def draw_causality(ax: Axes, result: xr.Dataset) -> None:
    """Draw both directions in the pairs of the column where one is detected, and surrogates."""
    from pcsim.plots import colour, plot_tuning

    here = result.sel(CENTRE)
    heard = here[["granger", "granger_surrogate"]].where(here["detected"].astype(bool))
    here = heard.mean("pair")
    lines = {"forward": ("error", "errors forward"), "backward": ("latent", "estimates back")}
    for way, (meaning, label) in lines.items():
        curve = here["granger"].sel(direction=way)
        plot_tuning(curve, x="frequency", ax=ax, label=label, color=colour(meaning), linestyle="-")
    made = here["granger_surrogate"].mean("direction")
    plot_tuning(
        made, x="frequency", ax=ax, label="surrogates", color=colour("control"), linestyle=":"
    )
    shade_bands(ax)
    ax.set_yscale("log")
    ax.set_ylim(1e-3, 2.0)
    ax.set_ylabel("Granger causality (nats)")
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.93))


def draw_index(ax: Axes, result: xr.Dataset) -> None:
    """Draw the asymmetry index of each frequency with fast and with slow errors."""
    from pcsim.plots import COLOURS, plot_tuning

    shown = ((CENTRE["ratio"], "-", COLOURS["error"]), (1.0, "--", COLOURS["control"]))
    for ratio, line, shade in shown:
        here = result.sel(ratio=ratio, delay=CENTRE["delay"])
        curves = here["granger"].where(here["detected"].astype(bool))
        ahead, back = (curves.sel(direction=way) for way in ("forward", "backward"))
        index = ((ahead - back) / (ahead + back)).mean("pair")
        label = f"ratio {ratio:g}"
        plot_tuning(index, x="frequency", ax=ax, label=label, color=shade, linestyle=line)
    ax.axhline(0.0, color=COLOURS["data"], linewidth=0.6)
    shade_bands(ax)
    ax.set_ylim(-1.0, 1.0)
    ax.set_ylabel("DAI (1: forward only)")
    ax.legend(loc="lower left")


EXPERIMENT = Experiment(
    name="rhythm",
    question="Where do errors go forward in gamma and estimates come back in beta?",
    scales={
        "quick": {"seeds": 3, "n_trials": 10, "duration": 2.0},
        "full": {"seeds": 5, "n_trials": 40, "duration": 4.0},
    },
    pieces=pieces,
    collect=collect,
    figures=figures,
)
