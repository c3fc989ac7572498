"""How far from rest are the errors of Rao & Ballard's circuit, by time after onset?

    python benchmarks/settling.py

Trains one replica (seed 0) and shows the bars of H10 and gratings for 16 s, with the time constant
of level 2 that the circuit chooses and with the slower one that an early version had (tau times
the precision of level 2). Prints the distance of the errors of the central module from those at
16 s, relative to them, and how many units are end-stopped at rest.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from pcsim.catalog import load
from pcsim.protocols import respond
from pcsim.roster import train, variant
from pcsim.stimuli import bars, gratings

TIMES = (0.4, 1.0, 2.0, 4.0)
LAST, EVERY = 16.0, 0.1


def central_errors(model, stimulus: xr.DataArray) -> np.ndarray:
    """Return the errors of level 1 of the central module, (trial, time, unit)."""
    responses = respond(model, stimulus, level=1, role="error", every=EVERY)
    rate = responses["rate"].transpose("trial", "time", "unit")
    return rate.isel(unit=np.abs(responses["x"].values) <= 0.16).to_numpy()


def distance(errors: np.ndarray, time: float) -> float:
    """Return the distance from the last errors, relative to them."""
    then, last = errors[:, round(time / EVERY) - 1], errors[:, -1]
    return float(np.linalg.norm(then - last) / np.linalg.norm(last))


def main() -> None:
    """Print the table."""
    model = train(variant("RB"), seed=0)
    field, scale = model.field_shape, model.px_per_deg
    lengths = np.arange(1, 27)
    shown = {
        "bars": bars(field, length=lengths / scale, width=2 / scale, contrast=-1.0, duration=LAST),
        "gratings": gratings(
            field, spatial_frequency=[1.5, 2.5, 3.5] * 2, diameter=[0.5] * 3 + [1.5] * 3,
            duration=LAST,
        ),
    }  # fmt: skip
    stopping = load("analysis", "end_stopping")
    slow = replace(model, tau_top=model.tau * model.top_precision)
    for name, tested in (("own tau_top", model), ("tau_top = tau * top_precision", slow)):
        print(name)
        for what, stimulus in shown.items():
            errors = central_errors(tested, stimulus)
            row = "  ".join(f"{t:g} s: {distance(errors, t):.3f}" for t in TIMES)
            print(f"  {what:9s} distance from rest  {row}")
    evidence, _ = stopping.observe(model, seed=0, scale="quick")
    print(f"end-stopped at rest: {int(evidence['stopped'].sum())} of {evidence.sizes['unit']}")


if __name__ == "__main__":
    main()
