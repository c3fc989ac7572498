"""H19: cells respond to the onset of an image with a transient, errors more than estimates."""

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
from pcsim.measures import transience_index
from pcsim.model import Model, lesion
from pcsim.protocols import by_scale, lacks, respond, roles_at, signal_role, visual_field
from pcsim.stimuli import natural_patches
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LEVEL = 1
N_IMAGES = {"quick": 16, "full": 64}
FRAME, STEP = 0.3, 0.004
"""Seconds an image stays, and between recorded times."""
PEAK, SUSTAINED = slice(0.0, 0.12), slice(0.15, 0.24)
"""Windows of the index, seconds after onset. Cells of V1 were read from 0.03 s on, before which
none responds; circuits without a retina do."""
MEASURABLE = 0.05
"""Share of the peak by which a response must fall at offset for its time to be measured."""
SHOWN = ("PATH", "RB", "ADAPT", "LN")


def images(model: Model, *, n: int, seed: int) -> xr.DataArray:
    """Return each patch flashed on grey, and each patch between its negatives, 0.9 s a trial."""
    field, px_per_deg = visual_field(model)
    patches = natural_patches(field, n=n, px_per_deg=px_per_deg, seed=seed + 10_000).to_numpy()
    grey = np.full_like(patches, 0.5)
    flashed = np.concatenate([patches, grey, grey], axis=1)
    switched = np.concatenate([1.0 - patches, patches, 1.0 - patches], axis=1)
    return stimulus_array(
        np.concatenate([flashed, switched]), frame_duration=FRAME, px_per_deg=px_per_deg,
        condition=np.repeat(["flash", "switch"], n),
    )  # fmt: skip


def observe(model: Model, *, seed: int, scale: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Record errors and estimates (or the one signal there is) of V1 at onsets and offsets."""
    role = signal_role(model, LEVEL)
    assert role is not None
    stimulus = images(model, n=N_IMAGES[scale], seed=seed)
    shown = respond(model, stimulus, level=LEVEL, role=role, every=STEP, seed=seed)
    ours = transients(shown)
    other = ours
    if role == "error" and "latent" in roles_at(model, LEVEL):
        found = respond(model, stimulus, level=LEVEL, role="latent", every=STEP, seed=seed)
        other = transients(found)
    estimate = float(other["index"][other["included"]].mean()) if other["included"].any() else 0.0
    evidence = xr.Dataset(
        {
            "index": ours["index"],
            # A model of one signal has no difference between two.
            "estimate": ours["index"] if other is ours else xr.full_like(ours["index"], estimate),
            "onset_after_offset": ours["onset_after_offset"],
            "course": ours["course"],
            "course_estimate": other["course"],
            "included": ours["included"],
        }
    )
    return evidence, shown


def transients(responses: xr.Dataset) -> xr.Dataset:
    """Return the transience of each unit, averaged over images, and how late it turns on."""
    rate = responses["rate"].transpose("trial", "time", "unit")
    flash, switch = (
        rate.isel(trial=responses["condition"].values == name) for name in ("flash", "switch")
    )
    # Units of both signs are read as an on- and an off-cell together, image by image.
    size = responses.isel(trial=flash["trial"].values).assign(rate=abs(flash))
    index = transience_index(size, rectify="none", peak=PEAK, sustained=SUSTAINED)
    time = rate["time"].values
    course = size["rate"].mean("trial")
    peak = course.isel(time=time < PEAK.stop + STEP / 2).max("time").to_numpy()
    scale = float(np.percentile(peak, 95))
    included = peak > 0.05 * scale if scale > 1e-12 else np.zeros(len(peak), dtype=bool)
    heard = course.isel(unit=included) if included.any() else course
    mean = heard.mean("unit").to_numpy()
    return xr.Dataset(
        {
            "index": ("unit", index.isel(condition=0).fillna(0.0).to_numpy()),
            "onset_after_offset": ("unit", lag(switch.to_numpy(), time)),
            "course": ("time", mean / max(float(mean.max()), 1e-30)),
            "included": ("unit", included),
        },
        coords={"time": time},
    )


def lag(rate: Any, time: Any) -> Any:
    """Return half-rise less half-fall when images switch from negative to positive and back.

    Each unit is read with the sign by which the positive prefers it; 0 where the response has
    vanished before the image does, so that there is no offset.
    """
    after = time - FRAME
    early = (after > 0) & (after <= 0.15)
    extreme = np.abs(rate[:, early]).argmax(axis=1)[:, None]
    sign = np.sign(np.take_along_axis(rate[:, early], extreme, axis=1))
    course = np.maximum(sign * rate, 0.0).mean(axis=0)
    lags = []
    for unit in course.T:
        before, on = unit[(time > FRAME - 0.05) & (after <= 1e-9)].mean(), unit[early].max()
        held = unit[(time > 2 * FRAME - 0.05) & (after <= FRAME + 1e-9)].mean()
        late = unit[after > FRAME + 1e-9]
        if held - late.min() < MEASURABLE * (on - before) or on <= before:
            lags.append(0.0)
            continue
        rise = np.argmax(unit[after > 1e-9] >= 0.5 * (before + on))
        fall = np.argmax(late <= 0.5 * (held + late.min()))
        lags.append(STEP * float(rise - fall))
    return np.array(lags)


def transience(means: Means) -> Any:
    """Return the mean transience index of the errors."""
    return means["index"]


def over_estimate(means: Means) -> Any:
    """Return by how much errors are more transient than estimates."""
    return means["index"] - means["estimate"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw the mean time course of errors and estimates of each column around an image."""
    from pcsim.plots import OKABE_ITO

    shades = dict(zip(SHOWN, ("vermillion", "blue", "green", "black"), strict=True))
    ax.axvspan(1e3 * PEAK.start, 1e3 * PEAK.stop, color="0.94", linewidth=0)
    ax.axvspan(1e3 * SUSTAINED.start, 1e3 * SUSTAINED.stop, color="0.87", linewidth=0)
    ax.axvline(1e3 * FRAME, color="0.5", linewidth=0.6, linestyle=":")
    for label in SHOWN:
        found = evidence.get(label, ())
        two = any(not one["course"].equals(one["course_estimate"]) for one in found)
        kinds = {"course": ("-", "error" if two else "output")}
        if two:
            kinds["course_estimate"] = ("--", "estimate")
        for name, (line, kind) in kinds.items() if found else ():
            mean = xr.concat([one[name] for one in found], "replica").mean("replica")
            text = f"{label}, {kind}" if two else label
            ax.plot(1e3 * mean["time"], mean, line, color=OKABE_ITO[shades[label]], label=text)
    ax.set_xlim(0.0, 500.0)
    ax.set_ylim(0.0, 1.05)
    ax.set_xlabel("Time after onset (ms)")
    ax.set_ylabel("Mean |response| (share of peak)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=1.0)


HYPOTHESIS = Hypothesis(
    id="H19",
    version=2,
    name="Onset transients, larger in errors than in estimates",
    claim=(
        "Cells of V1 answer the onset of a static image with a transient. Under predictive coding "
        "errors do so, because the estimate has not yet caught up, and estimates do not."
    ),
    family="V1",
    protocol=(
        f"{by_scale(N_IMAGES, 'natural patches')} on for 0.3 s, then grey (0.2 s in the macaque, "
        "but models without a retina are some 40 ms ahead, and the sustained window must end "
        "before the image); the same patches for 0.3 s between their negatives. |rate| averaged "
        "over patches. Units are included if their peak exceeds 5 % of the population's 95th "
        "percentile."
    ),
    statistic=(
        "TI = (peak - sustained) / (peak + |sustained|): the peak up to 120 ms, the mean of 150 to "
        "240 ms. Beside it, not judged: half-rise less half-fall after switching to the "
        "preferred of negative and positive and back."
    ),
    signal="error units of level 1 against latent units (or the one signal there is)",
    falsified_if="TI of errors is not above that of estimates.",
    units="transience index",
    missing=lambda model: lacks(model, LEVEL),
    observe=observe,
    variables=("index", "estimate", "onset_after_offset"),
    combine=transience,
    null=0.0,
    direction=1,
    rope=(-0.05, 0.05),
    reference=Reference(
        value=0.65,
        interval=(0.44, 1.0),
        status="computed",
        source=(
            "176 units of macaque V1, static frames of 0.2 s: median 0.65, quartiles 0.44 and 1.00 "
            "(PSTHs of Henaff et al. 2021, Nat. Commun. 12:5982). Cells take several to tens of ms "
            "longer to turn on than off (Bair et al. 2002, J. Neurosci. 22:3189)."
        ),
    ),
    requirements=(
        Requirement(
            name="error over estimate",
            statement="Errors are more transient than estimates; 0 in a model of one signal.",
            combine=over_estimate,
        ),
    ),
    controls=(
        Control(
            name="static",
            statement="Static filters follow the image and hold their response.",
            variant="LN",
        ),
        Control(
            name="adaptation",
            statement="Units that adapt are transient without predicting anything.",
            variant="ADAPT",
        ),
        Control(
            name="feedback cut",
            statement="Without predictions from above there is no estimate that has to catch up.",
            transform=lambda model, seed: lesion(model, feedback_gain=0.0),
        ),
    ),
    departures=(
        "Images stay 0.3 s and not 0.2 s, and the peak is sought from 0 and not from 30 ms on.",
        "Onset against offset is measured and not judged.",
    ),
    expectations={"PATH": "+", "PATH-cut": "?", "COLUMN": "+"},
    panel=panel,
)
