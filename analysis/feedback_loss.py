"""H12: what losing feedback does to the centre response tells subtraction from facilitation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pcsim.hypothesis import Control, Hypothesis, Means, Reference
from pcsim.model import Model, lesion
from pcsim.protocols import fitted_units, lacks, size_tuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

LEVEL = 1
GAINS = {"quick": (1.0, 0.5, 0.0), "full": (1.0, 0.75, 0.5, 0.25, 0.0)}


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Measure size tuning at falling gains of the feedback."""
    units = fitted_units(model, LEVEL, seed=seed, scale=scale)
    gains = GAINS[scale]
    curves = [size_tuning(lesion(model, feedback_gain=g), units, seed=seed) for g in gains]
    curve = xr.concat([one["response"] for one in curves], xr.Variable("gain", list(gains)))
    diameter = curves[0]["diameter"]
    intact, cut = curve.sel(gain=1.0), curve.sel(gain=0.0)
    best = intact.argmax("size")
    # The proximal surround: the shown diameter nearest to twice the optimal one.
    twice = np.abs(np.log(diameter / (2.0 * diameter.isel(size=best)))).argmin("size")
    peak = intact.max("size")
    effects: dict[str, xr.DataArray] = {
        "centre": change(intact.isel(size=best), cut.isel(size=best)),
        "surround": change(intact.isel(size=twice), cut.isel(size=twice)),
        "size_change": xr.apply_ufunc(
            np.log2, diameter.isel(size=cut.argmax("size")) / diameter.isel(size=best)
        ),
        "suppression_change": suppression(cut) - suppression(intact),
    }
    signs = {"centre": -1, "surround": 1, "size_change": 1, "suppression_change": -1}
    agrees = [(sign * effects[name] > 0) * 1.0 for name, sign in signs.items()]
    score = xr.concat(agrees, "effect").sum("effect")
    return xr.Dataset(
        {
            **effects,
            "score": score,
            "curve": curve,
            "diameter": diameter,
            "included": peak > 0.05 * float(np.percentile(peak, 95)),
        }
    )


def change(before: xr.DataArray, after: xr.DataArray) -> xr.DataArray:
    """Return the relative change, 0 for a unit that was silent before."""
    before, after = before.reset_coords(drop=True), after.reset_coords(drop=True)
    return (after - before) / before.where(before > 0, 1.0) * (before > 0)


def suppression(curve: xr.DataArray) -> xr.DataArray:
    """Return the suppression index of size tuning curves."""
    curve = curve.reset_coords(drop=True)
    peak = curve.max("size")
    plateau = curve.isel(size=slice(-2, None)).mean("size")
    return (peak - plateau) / peak.where(peak > 0, 1.0)


def centre_change(means: Means) -> Any:
    """Return the mean relative change of the response to a patch as large as the field."""
    return means["centre"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw size tuning with and without feedback, relative to the intact peak."""
    from pcsim.plots import plot_tuning

    for label in ("RB", "DN"):
        for gain in (1.0, 0.0):
            curves = []
            for one in evidence.get(label, ()):
                units = one.isel(unit=one["included"].values)
                peak = units["curve"].sel(gain=1.0, drop=True).max("size")
                curves.append((units["curve"].sel(gain=gain, drop=True) / peak).mean("unit"))
            if curves:
                name = f"{label}, feedback {gain:g}"
                plot_tuning(xr.concat(curves, "replica"), x="size", label=name, ax=ax)
    ax.set_xscale("log")
    ax.set_xticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("Grating diameter (RF sigma)")
    ax.set_ylabel("Response (share of intact peak)")
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.02)


HYPOTHESIS = Hypothesis(
    id="H12",
    name="Feedback loss lowers the centre response",
    claim=(
        "Losing feedback lowers the response to a stimulus confined to the receptive field, "
        "enlarges the "
        "field, raises the response to the near surround and lowers suppression. Classic "
        "predictive "
        "coding subtracts feedback, so its error units should rise instead."
    ),
    family="V1",
    protocol=(
        "Size tuning as in H11, with the gain of the feedback at 1, 0.5 and 0 (full: 1, 0.75, "
        "0.5, 0.25, 0)."
    ),
    statistic=(
        "Mean over units of the relative change of the response at the intact optimal diameter "
        "when the "
        "gain falls from 1 to 0. Also kept: the change at twice that diameter, of the optimal "
        "diameter "
        "(octaves), of SSI, and how many of the four have the published sign."
    ),
    signal="error units of level 1 (output or latent units of models without them)",
    falsified_if="The response at the optimal diameter rises when feedback is lost.",
    units="share of the intact response",
    missing=lambda model: lacks(model, LEVEL),
    observe=observe,
    variables=("centre", "surround", "size_change", "suppression_change", "score"),
    combine=centre_change,
    null=0.0,
    direction=-1,
    rope=(-0.02, 0.02),
    reference=Reference(
        status="read",
        source=(
            "Nurminen et al. 2018, Nat. Commun. 9:2281 (V2 to V1 feedback silenced, marmoset); "
            "Nassi et al. "
            "2014, Front. Syst. Neurosci. 8:105 (V2/V3 cooled, macaque). Signs only."
        ),
    ),
    controls=(
        Control(
            name="pool",
            statement="Feed-forward normalization whose pool shrinks without feedback.",
            variant="DN",
        ),
    ),
    departures=(
        "One of the four effects is judged, that at the centre; the score of 0 to 4 is kept "
        "beside it.",
        "The gain of all feedback is lowered; in the sources light or cold acts on V2 and V3.",
        "Errors are judged; estimates are not.",
    ),
    panel=panel,
)
