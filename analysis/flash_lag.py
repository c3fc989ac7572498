"""H29f: where a moving bar is read from the estimates, it is ahead of a flash at the same place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import (
    Control,
    Hypothesis,
    Means,
    Reference,
    Requirement,
)
from pcsim.model import Model
from pcsim.protocols import ESTIMATES, lacks, respond, signal_role, visual_field
from pcsim.stimuli import bars
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LEVEL = 1
SPEEDS = (0.5, 1.0, 1.5)
"""Pixels a frame; 10 to 30 pixels a second."""
FRAME, STEP = 0.05, 0.01
N_GREY, N_BEFORE, N_AFTER = 2, 4, 2
"""Frames of grey, of motion before the flash, and after it."""
PLACES = (-1.0, 0.0, 1.0)
"""Where the bars are at the flash, pixels from the middle."""
TEMPLATES = np.arange(-5.0, 5.01, 0.25)
STEADY = slice(0.15, 0.3)
WIDTH, LENGTH = 2.0, 10.0


def frames_of(model: Model, where: Any, contrast: float) -> Any:
    """Return a frame (y, x) for every place of the bar in `where`; NaN draws grey."""
    field, px_per_deg = visual_field(model)
    where = np.asarray(where)
    seen = np.isfinite(where)
    out = np.full((where.size, *field), 0.5)
    out[seen] = bars(
        field, length=LENGTH / px_per_deg, width=WIDTH / px_per_deg, orientation=np.pi / 2,
        x=where[seen] / px_per_deg, contrast=contrast, px_per_deg=px_per_deg,
    ).to_numpy()[:, 0]  # fmt: skip
    return out


def missing(model: Model) -> str:
    """Return why a model cannot be shown the bars, "" if it can."""
    if reason := lacks(model, LEVEL, ESTIMATES):
        return reason
    reach = 2 * max(np.nanmax(np.abs(one["path"])) for one in trials()) + WIDTH
    (_, n_x), _ = visual_field(model)
    return f"its field is {n_x} px wide, bars pass over {reach:g} px" if n_x < reach else ""


def trials() -> list[dict[str, Any]]:
    """Return every pass and every flash: place, direction, speed, contrast and path."""
    out = []
    nothing = np.full(N_GREY, np.nan)
    when = np.arange(-N_BEFORE, N_AFTER + 1)
    for contrast in (-0.8, 0.8):
        for place in PLACES:
            flash = np.where(when == 0, place, np.nan)
            one = {"place": place, "contrast": contrast}
            out.append({**one, "kind": "flash", "way": 0.0, "path": np.append(nothing, flash)})
            for way in (-1.0, 1.0):
                for speed in SPEEDS:
                    path = np.append(nothing, place + way * speed * when)
                    out.append({**one, "kind": f"speed {speed:g}", "way": way, "path": path})
    return out


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Match the responses to passes and flashes with those to bars that stay."""
    role = signal_role(model, LEVEL, ESTIMATES)
    assert role is not None
    _, px_per_deg = visual_field(model)
    shared: dict[str, Any] = {"level": LEVEL, "role": role, "every": STEP, "seed": seed}
    templates = {}
    for contrast in (-0.8, 0.8):
        still = frames_of(model, np.append(TEMPLATES, np.nan), contrast)[:, None]
        stimulus = stimulus_array(still, frame_duration=STEADY.stop, px_per_deg=px_per_deg)
        rate = respond(model, stimulus, **shared)["rate"].sel(time=STEADY).mean("time")
        rest = rate.transpose("trial", "unit").to_numpy()
        templates[contrast] = rest[:-1] - rest[-1]
    shown = trials()
    movies = np.array([frames_of(model, one["path"], one["contrast"]) for one in shown])
    grey = np.full_like(movies[:1], 0.5)
    stimulus = stimulus_array(
        np.concatenate([movies, grey]), frame_duration=FRAME, px_per_deg=px_per_deg,
        condition=[*(one["kind"] for one in shown), "grey"],
    )  # fmt: skip
    responses = respond(model, stimulus, **shared)
    rates = responses["rate"].transpose("trial", "time", "unit").to_numpy()
    return leads(shown, rates[:-1] - rates[-1], templates), responses.isel(trial=[0, 1])


def leads(shown: Sequence[Mapping[str, Any]], change: Any, templates: Mapping[float, Any]) -> Any:
    """Return by how much passing bars are ahead of flashes when these are seen best, pixels.

    Parameters
    ----------
    shown
        The trials.
    change : (trial, time, unit)
        Their responses less that to grey.
    templates
        Contrast -> responses (place, unit) to bars that stay, less that to grey.
    """
    key = [(one["contrast"], one["place"]) for one in shown]
    flashed = {k: i for i, k in enumerate(key) if shown[i]["kind"] == "flash"}
    rows: dict[str, list[float]] = {f"speed {speed:g}": [] for speed in SPEEDS}
    heard = []
    for i, one in enumerate(shown):
        if one["kind"] == "flash":
            continue
        flash = change[flashed[key[i]]]
        best = int(np.linalg.norm(flash, axis=1).argmax())
        like = templates[one["contrast"]]
        ahead = place_of(change[i, best], like) - place_of(flash[best], like)
        rows[one["kind"]].append(one["way"] * ahead)
        if one["kind"] == f"speed {SPEEDS[0]:g}":
            heard.append(bool(np.linalg.norm(flash[best]) > 0))
    names = dict(zip(("slow", "middle", "fast"), rows, strict=True))
    variables = {name: ("unit", np.array(rows[kind])) for name, kind in names.items()}
    return xr.Dataset({**variables, "included": ("unit", np.array(heard))})


def place_of(response: Any, templates: Any) -> float:
    """Return the place whose template (place, unit) points most nearly the same way, pixels.

    Between the places of the templates it is the top of the parabola through three cosines.
    """
    norm = np.linalg.norm(templates, axis=1) * np.linalg.norm(response)
    cosine = np.where(norm > 0, templates @ response / np.where(norm > 0, norm, 1.0), 0.0)
    top = int(cosine.argmax())
    if 0 < top < len(TEMPLATES) - 1:
        before, here, after = cosine[top - 1 : top + 2]
        bend = before - 2.0 * here + after
        shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
        return float(TEMPLATES[top] + shift * (TEMPLATES[1] - TEMPLATES[0]))
    return float(TEMPLATES[top])


def lead(means: Means) -> Any:
    """Return the mean lead over the three speeds, pixels."""
    return (means["slow"] + means["middle"] + means["fast"]) / 3.0


def grows(means: Means) -> Any:
    """Return the lead at the highest less that at the lowest speed, pixels."""
    return means["fast"] - means["slow"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the lead against the speed for each column."""
    from pcsim.plots import OKABE_ITO

    shown = {"PREDNET-s": "vermillion", "RB": "blue", "ADAPT": "green", "LN": "black"}
    for label, shade in shown.items():
        for replica, one in enumerate(evidence.get(label, ())):
            kept = one.isel(unit=one["included"].values)
            values = [float(kept[name].mean()) for name in ("slow", "middle", "fast")]
            ax.plot(
                np.array(SPEEDS) / FRAME, values, "o-", markersize=3, linewidth=0.8,
                color=OKABE_ITO[shade], label=None if replica else label,
            )  # fmt: skip
    ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    ax.set_xlabel("Speed (px/s)")
    ax.set_ylabel("Lead of the moving bar (px)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, fontsize=6)


HYPOTHESIS = Hypothesis(
    id="H29f",
    name="Flash-lag",
    claim=(
        "A moving bar is seen ahead of a bar that is flashed where it is, the more so the faster "
        "it moves, as if the estimate were of what comes next (Nijhawan 1994; PredNet, Lotter et "
        "al. 2020)."
    ),
    family="temporal",
    protocol=(
        "Vertical bars of 2 by 10 px, dark and light, at -1, 0 and 1 px from the middle of the "
        "field: flashed for one frame of 50 ms, or passing there in that frame at 0.5, 1 or 1.5 "
        "px a frame either way, four frames after they appeared. Places are read, when the flash "
        "is seen best, from the response whose direction is nearest among those to bars that stay "
        "(-5 to 5 px). One unit is a pass. The same at full scale."
    ),
    statistic=(
        "Lead: decoded place of the moving less that of the flashed bar along the motion, mean of "
        "the speeds. Also: lead at 1.5 less lead at 0.5 px a frame."
    ),
    signal="latent units of level 1 (output or error units of models without them)",
    falsified_if="The lead is not above 0, or does not grow with the speed.",
    units="px",
    missing=missing,
    observe=observe,
    variables=("slow", "middle", "fast"),
    combine=lead,
    null=0.0,
    direction=1,
    rope=(-0.05, 0.05),
    reference=Reference(
        status="remembered",
        source="Nijhawan 1994, Nature 370:256 (perception): sign, from memory.",
    ),
    requirements=(
        Requirement(name="speed", statement="The lead grows with the speed.", combine=grows),
    ),
    controls=(
        Control(
            name="static",
            statement="Filters follow the bar and lag by their time constant.",
            variant="LN",
        ),
        Control(
            name="untrained",
            statement="A network that has learned nothing extrapolates nothing.",
            variant="PREDNET-untr",
        ),
        Control(
            name="no error loss",
            statement="The same network without a loss on its errors (Ext. Data Fig. 9).",
            variant="PREDNET-noE",
        ),
        Control(
            name="static frames",
            statement="The same network raised on frames that stand still has seen no motion.",
            variant="PREDNET-static",
        ),
    ),
    departures=(
        "The observer is replaced by a decoder that knows bars that stay.",
        "Three speeds only, 10 to 30 px/s, and one contrast of either sign.",
        "Static-frame training was added as a control after verdicts had been seen.",
    ),
    version=2,
    expectations={
        "PATH": "?", "COLUMN": "?", "JB": "?", "PREDNET-noE": "?",
        "PREDNET-untr": "-", "PREDNET-static": "-",
    },
    panel=panel,
)  # fmt: skip
