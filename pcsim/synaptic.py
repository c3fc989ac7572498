r"""The local field potential that a circuit leaves, from the synaptic currents of its pyramids.

Pyramids contribute most, because their dendrites lie in parallel; excitatory currents enter far
from where inhibitory ones leave, so both turn the dipole the same way and their sizes add up:

.. math:: LFP(t) = \sum_{i \in \text{pyramids}} \sum_j \lvert w_{ij}\rvert\, r_j(t - d_{ij})

For rates that are not negative this is the sum of absolute currents of Mazzoni et al. (2008, 2015).
Signed rates are deviations from a spontaneous rate; the sum is then the deviation of that potential
from its own spontaneous value, as long as no rate falls below zero.

References
----------
Mazzoni et al. (2008), https://doi.org/10.1371/journal.pcbi.1000239
Mazzoni et al. (2015), https://doi.org/10.1371/journal.pcbi.1004584
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import xarray as xr
from numpy.typing import NDArray

from pcsim.circuit import Circuit, check_circuit
from pcsim.declaration import STIMULUS, Population, Projection
from pcsim.engine_run import prepared
from pcsim.kinds import Latent
from pcsim.messages import check_choice, refusal, unknown_name
from pcsim.nonlinearity import nonlinearity
from pcsim.responses import check_responses

__all__ = ["local_field_potential", "pyramids"]

Floats = NDArray[np.float64]
ROLES = ("error", "weighted_error", "latent")
LAYERS = ("L2", "L3", "L5", "L6")
SITES = ("area", "layer")


def pyramids(circuit: Circuit) -> tuple[str, ...]:
    """Return the names of the pyramidal populations of a circuit.

    Error and latent units of layers 2, 3, 5 and 6; of a circuit without layers, all its error and
    latent units.

    Examples
    --------
    >>> from pcsim.circuits.bogacz_2017 import MODEL
    >>> pyramids(MODEL)
    ('xi_0', 'mu_1', 'prior_1')
    """
    layered = any(p.layer for p in circuit.populations)
    return tuple(
        p.name
        for p in circuit.populations
        if p.population.removesuffix("_pos").removesuffix("_neg") in ROLES
        and (not layered or p.layer.startswith(LAYERS))
    )


def local_field_potential(
    circuit: Circuit,
    responses: xr.Dataset,
    *,
    stimulus: xr.DataArray | None = None,
    populations: Sequence[str] | None = None,
    site: str = "area",
) -> xr.Dataset:
    """Add `lfp` (trial, time, site) to responses of a circuit.

    Parameters
    ----------
    circuit
        What was run; its projections say which currents flow.
    responses
        Of all populations that project to the pyramids, evenly sampled. Delays between samples are
        interpolated.
    stimulus
        Needed where the stimulus itself projects to pyramids.
    populations
        Names of the populations whose currents count; `pyramids` if None.
    site
        "area": one site an area. "layer": one for each layer of each area.

    Returns
    -------
    responses : xr.Dataset
        With `lfp` and the coordinate `site`, such as "V1" or "V1 L2/3".

    Raises
    ------
    ValueError
        If a source was not recorded, times are uneven, or a projection has a gate.

    Examples
    --------
    >>> from pcsim.circuits.bogacz_2017 import MODEL
    >>> from pcsim.responses import stimulus_array
    >>> light = stimulus_array(np.full((1, 1, 1), 2.0), frame_duration=0.6)
    >>> rates = local_field_potential(MODEL, MODEL.run(light), stimulus=light)
    >>> rates.lfp.dims, rates.sizes["site"]
    (('trial', 'time', 'site'), 1)
    """
    where = "local_field_potential"
    check_choice(where, "site", site, SITES)
    check_responses(responses, where)
    declared, projections = check_circuit(circuit)
    by_name = {p.name: p for p in declared}
    names = pyramids(circuit) if populations is None else tuple(populations)
    for name in names:
        if name not in by_name:
            raise unknown_name(where, "population", name, by_name)
    if not names:
        found, advice = "no pyramids", "Name them: populations=..."
        raise ValueError(refusal(where, found, "error or latent units", advice))
    shown = None if stimulus is None else _held(circuit, stimulus, responses)
    sums: dict[str, Floats] = {}
    for projection in projections:
        if projection.target in names:
            at = _site(by_name[projection.target], site)
            current = _current(where, projection, by_name, responses, shown)
            sums[at] = sums[at] + current if at in sums else current
    if not sums:
        raise ValueError(refusal(where, f"no projections to {names}", "at least one"))
    sites = list(sums)
    values = np.stack([sums[one] for one in sites], axis=-1)
    lfp = xr.DataArray(values, dims=("trial", "time", "site"), coords={"site": sites})
    return responses.assign(lfp=lfp)


def _site(population: Population, site: str) -> str:
    parts = [population.area or "circuit", population.layer if site == "layer" else ""]
    return " ".join(part for part in parts if part)


def _current(
    where: str,
    projection: Projection,
    by_name: dict[str, Population],
    responses: xr.Dataset,
    shown: Floats | None,
) -> Floats:
    """Return the summed size of the currents of one projection, (trial, time)."""
    here = f"{where}, {projection.source!r} to {projection.target!r}"
    if projection.gate is not None:
        expected, advice = "projections without one", "Leave that population out."
        raise ValueError(refusal(here, f"gate {projection.gate!r}", expected, advice))
    if projection.source == STIMULUS:
        if shown is None:
            expected = "the stimulus that was shown"
            raise ValueError(refusal(here, "no stimulus", expected, "Give stimulus=..."))
        rate = shown
    else:
        rate = _sent(here, projection, by_name[projection.source], responses)
    total = _delayed(here, rate @ _strength(projection, rate.shape[-1]), projection, responses)
    return np.asarray(total, dtype=np.float64)


def _sent(here: str, projection: Projection, source: Population, responses: xr.Dataset) -> Floats:
    """Return what the source sends, (trial, time, unit)."""
    recorded = responses["name"].values if "name" in responses.coords else np.array([])
    mine = np.flatnonzero(recorded == source.name)
    if mine.size != source.size:
        found = f"{mine.size} recorded units of {source.name!r}"
        advice = "Record all that projects to the pyramids."
        raise ValueError(refusal(here, found, f"{source.size}", advice))
    rate = responses["rate"].isel(unit=mine).transpose("trial", "time", "unit").to_numpy()
    if projection.reads == "output" and isinstance(source.kind, Latent):
        return np.asarray(nonlinearity(source.kind.inner).f(rate, np), dtype=np.float64)
    return np.asarray(rate, dtype=np.float64)


def _strength(projection: Projection, n_source: int) -> Floats:
    """Return the summed strength of the synapses that each source unit makes, (n_source,)."""
    weights: Any = projection.weights
    if weights is None:
        return np.full(n_source, abs(projection.sign))
    if hasattr(weights, "to_sparse"):
        weights = weights.to_sparse()
    elif not scipy.sparse.issparse(weights):
        weights = np.asarray(weights)
    return abs(projection.sign) * np.asarray(abs(weights).sum(axis=0), dtype=np.float64).ravel()


def _delayed(here: str, sent: Floats, projection: Projection, responses: xr.Dataset) -> Floats:
    """Return a signal (trial, time) as it was a delay ago, 0 before the run began."""
    if not projection.delay:
        return sent
    time = responses["time"].values
    steps = np.diff(time)
    if len(time) < 2 or not np.allclose(steps, steps[0], rtol=1e-6):
        found, advice = "times that are not even", "Record every record_dt."
        raise ValueError(refusal(here, found, "even times for delays", advice))
    # The state before the first sample is zero, where every run starts.
    start = np.concatenate([[time[0] - steps[0]], time])
    padded = np.concatenate([np.zeros((len(sent), 1)), sent], axis=1)
    return np.stack([np.interp(time - projection.delay, start, row, left=0.0) for row in padded])


def _held(circuit: Circuit, stimulus: xr.DataArray, responses: xr.Dataset) -> Floats:
    """Return the prepared stimulus at the recorded times: what was on just before."""
    features = prepared(type(circuit).__name__, circuit, stimulus)
    onsets, time = stimulus["time"].values, responses["time"].values
    shown = np.searchsorted(onsets, time - 1e-9, side="right") - 1
    return np.where((shown >= 0)[:, None], features[:, np.maximum(shown, 0)], 0.0)
