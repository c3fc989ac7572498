"""The figure of ``pcsim simulate``: rates by layer and area, local field potential, spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pcsim.measures import power_spectrum
from pcsim.messages import refusal
from pcsim.storage import atomic_path

__all__ = ["SUFFIXES", "draw", "population_sizes", "potentials"]

SUFFIXES = (".pdf", ".png", ".svg")
SEGMENT = 0.25
"""Seconds of a segment of the spectrum, where the run is long enough."""
HIGHEST = 200.0
"""Hz, where the spectrum ends."""
SHADES = ("#E69F00", "#56B4E9", "#CC79A7", "#4D4D4D", "#8C510A")


def population_sizes(responses: xr.Dataset) -> xr.DataArray:
    """Return the root mean square rate over units and stimuli of each population, with labels."""
    named = "name" if "name" in responses.coords else "population"
    rate = evoked(responses["rate"]).transpose("trial", "time", "unit").to_numpy()
    labels = responses[named].values.astype(str)
    rows, coords = [], []
    for name in dict.fromkeys(labels):
        mine = np.flatnonzero(labels == name)
        rows.append(np.sqrt((rate[:, :, mine] ** 2).mean(axis=(0, 2))))
        first = responses.isel(unit=mine[0])
        layer = str(first["layer"].item()) if "layer" in first.coords else ""
        role, area, level = (first[key].item() for key in ("population", "area", "level"))
        coords.append((name, role, area, layer, level))
    columns = [list(column) for column in zip(*coords, strict=True)]
    names = ("population", "role", "area", "layer", "level")
    labelled = {k: ("population", v) for k, v in zip(names, columns, strict=True)}
    time = responses["time"].values
    return xr.DataArray(
        np.array(rows), dims=("population", "time"), coords={**labelled, "time": time}
    )


def evoked(signal: xr.DataArray) -> xr.DataArray:
    """Average over the repeats of a stimulus, where `repeat` on `trial` counts them."""
    if "repeat" not in signal.coords:
        return signal
    repeat = signal["repeat"].values
    parts = [signal.isel(trial=np.flatnonzero(repeat == one)) for one in np.unique(repeat)]
    first = parts[0]
    mean = sum(part.transpose(*first.dims).to_numpy() for part in parts) / len(parts)
    return first.copy(data=mean)


def potentials(model: Any, responses: xr.Dataset, stimulus: xr.DataArray) -> xr.Dataset:
    """Return the responses with `lfp`, if the circuit has layers and recorded what drives them."""
    from pcsim.circuit import Circuit
    from pcsim.synaptic import local_field_potential

    if not isinstance(model, Circuit) or not any(p.layer for p in model.populations):
        return responses
    return local_field_potential(model, responses, stimulus=stimulus)


def draw(responses: xr.Dataset, path: Path) -> None:
    """Write the figure: a the rates, b the potentials, c their spectra (of rates without these)."""
    from pcsim.plots import DOUBLE_COLUMN, publication_figure, save

    if path.suffix not in SUFFIXES:
        raise ValueError(refusal("simulate", f"figure {path}", f"a name in {', '.join(SUFFIXES)}"))
    sizes = population_sizes(responses)
    laminar = any(sizes["layer"].values)
    with publication_figure(DOUBLE_COLUMN, 105 if laminar else 62) as figure:
        sides: Any = figure.subfigures(1, 2, width_ratios=(1.75, 1.0))
        left, right = sides
        _rates(left, sizes, laminar=laminar)
        _signals(right, responses, sizes)
        with atomic_path(path) as part:
            save(figure, part)


def _rates(figure: Any, sizes: xr.DataArray, *, laminar: bool) -> None:
    """Draw areas from left to right and layers from the surface down; or one panel a level."""
    from pcsim.plots_laminar import plot_laminar_rates

    if laminar:
        sizes = sizes.isel(population=sizes["layer"].values != "")
        down, across = ("layer", sorted(set(sizes["layer"].values), key=_depth)), "area"
    else:
        down, across = ("layer", [""]), "level"
    columns = list(dict.fromkeys(sizes[across].values.tolist()))
    axes = figure.subplots(len(down[1]), len(columns), sharex=True, sharey="row", squeeze=False)
    handles: dict[str, Any] = {}
    for row, layer in enumerate(down[1]):
        for column, name in enumerate(columns):
            ax = axes[row, column]
            here = (sizes["layer"].values == layer) & (sizes[across].values == name)
            if here.any():
                plot_laminar_rates(sizes.isel(population=here), ax=ax)
            found, labels = ax.get_legend_handles_labels()
            handles |= dict(zip(labels, found, strict=True))
            if row == 0:
                ax.set_title(str(name) if across == "area" else f"Level {name}")
            ax.set_ylim(bottom=0.0)
        axes[row, 0].set_ylabel(f"{layer}\nrate (a.u., r.m.s.)" if layer else "Rate (a.u., r.m.s.)")
    for ax in axes[-1]:
        ax.set_xlabel("Time (ms)")
    ncols = min(5, len(handles))
    place: dict[str, Any] = {"loc": "outside lower center", "columnspacing": 1.0}
    figure.legend(handles.values(), handles.keys(), ncols=ncols, handlelength=1.6, **place)
    _letter(figure, "a")


def _depth(layer: str) -> float:
    digits = [int(one) for one in layer if one.isdigit()]
    return float(np.mean(digits)) if digits else 0.0


def _signals(figure: Any, responses: xr.Dataset, sizes: xr.DataArray) -> None:
    """Draw the potentials and their spectra, or the spectra of the rates."""
    from pcsim.plots import plot_spectrum
    from pcsim.plots_laminar import ROLE_COLOURS, plot_lfp

    has_lfp = "lfp" in responses
    axes = figure.subplots(2 if has_lfp else 1, 1, squeeze=False)[:, 0]
    if has_lfp:
        lfp = responses["lfp"]
        shades = [SHADES[k % len(SHADES)] for k in range(lfp.sizes["site"])]
        plot_lfp(lfp.mean("trial"), ax=axes[0], colours=shades)
        axes[0].set_title("Local field potential (mean of trials)")
        axes[0].set_ylabel("each to its own scale")
        spectra = _spectra(lfp)
        for number, one in enumerate(spectra.transpose("site", "frequency")):
            plot_spectrum(
                one, ax=axes[1], color=shades[number], linestyle="-", label=str(one["site"].item())
            )
        axes[1].set_title(f"Its spectrum{_between(responses)}")
    else:
        spectra = _spectra(responses["rate"])
        roles = responses["population"].values.astype(str)
        for role in dict.fromkeys(roles):
            one = spectra.isel(unit=roles == role).mean("unit")
            shade = ROLE_COLOURS.get(role.removesuffix("_pos").removesuffix("_neg"), "#000000")
            plot_spectrum(one, ax=axes[0], color=shade, linestyle="-", label=role)
        axes[0].set_title(f"Spectrum of the rates{_between(responses)}")
    axes[-1].set_ylabel("Power (a.u.²/Hz)")
    axes[-1].legend()
    _letter(figure, "b")
    if has_lfp:
        _letter(figure, "c", y=0.5)


def _spectra(signal: xr.DataArray) -> xr.DataArray:
    """Return spectra of what differs between repeats; of all there is without repeats."""
    if "repeat" in signal.coords:
        mean = evoked(signal).transpose(*signal.dims).to_numpy()
        n_repeats = np.unique(signal["repeat"].values).size
        axis = signal.get_axis_num("trial")
        signal = signal.copy(data=signal.to_numpy() - np.concatenate([mean] * n_repeats, axis))
    step = float(signal["time"][1] - signal["time"][0])
    whole = step * signal.sizes["time"]
    return power_spectrum(signal, segment=min(SEGMENT, whole)).sel(frequency=slice(0.0, HIGHEST))


def _between(responses: xr.Dataset) -> str:
    return ", between repeats" if "repeat" in responses.coords else ""


def _letter(figure: Any, letter: str, *, y: float = 0.995) -> None:
    figure.text(0.005, y, letter, fontsize=9, fontweight="bold", va="top", ha="left")
