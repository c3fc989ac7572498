r"""Pairwise Granger causality, resolved in frequency: does the past of one signal predict another?

With the spectral matrix of a pair written as :math:`S = H \Sigma H^*`, :math:`H` its causal
transfer function and :math:`\Sigma` the covariance of what is new at every moment, the influence
of :math:`a` on :math:`b` is (Geweke 1982)

.. math:: G_{a \to b}(f) = \ln \frac{S_{bb}(f)}
    {S_{bb}(f) - (\Sigma_{aa} - \Sigma_{ab}^2/\Sigma_{bb})\,|H_{ba}(f)|^2}

in nats. Its mean over all frequencies, negative ones too, is the causality in time: the logarithm
of how many times smaller the variance of the error of predicting :math:`b` is when the past of
:math:`a` is known as well.

Two ways lead to :math:`H` and :math:`\Sigma`: Wilson's factorisation of the multitaper spectrum
(nonparametric; Dhamala, Rangarajan & Ding 2008), and an autoregression fitted to the signals.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.multitaper import Tapers, channel_dim, labelled_signal, two_sided
from pcsim.messages import check_array, check_number, refusal

__all__ = [
    "directed_asymmetry",
    "pair_granger",
    "power_drift",
    "spectral_factor",
    "spectral_granger",
]

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

MIN_SPECTRA = 20
"""Averaged spectra below which the factors of a pair are mostly noise: 10 a channel."""


def spectral_granger(
    signal: xr.Dataset | xr.DataArray,
    tapers: Tapers | None = None,
    *,
    max_drift: float = 6.0,
) -> xr.DataArray:
    """Return the Granger causality of all ordered pairs of channels from their spectra alone.

    No autoregression is chosen: the multitaper spectral matrix of each pair is factorised. Its
    smoothing limits the resolution to plus and minus the half bandwidth. Every value is at or above
    zero, so where there is no influence the mean is not zero but of the order of 1/n, with n
    averaged spectra.

    Parameters
    ----------
    signal
        Responses, of which `lfp` is taken, or an array (trial, time, channel).
    tapers
        How to cut and taper; None: plus and minus 3 Hz over whole trials.
    max_drift
        Largest `power_drift` of a signal that passes for stationary; raise it for few trials of a
        bursting one.

    Returns
    -------
    granger : (source, target, frequency)
        Nats; NaN on the diagonal. Source and target carry the channels' labels.

    Raises
    ------
    ValueError
        If fewer than 20 spectra are averaged, there is one channel only, a channel is silent, or
        the power drifts from one end of the trials to the other.
    RuntimeError
        If the factorisation does not converge.

    References
    ----------
    Dhamala, Rangarajan & Ding (2008), https://doi.org/10.1016/j.neuroimage.2008.02.020

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> first = rng.normal(size=(60, 500))
    >>> second = 0.7 * np.roll(first, 2, axis=1) + rng.normal(size=(60, 500))
    >>> pair = xr.DataArray(np.stack([first, second], -1), dims=("trial", "time", "site"),
    ...                     coords={"time": np.arange(500) / 250, "site": ["V1", "V2"]})
    >>> found = spectral_granger(pair).sel(frequency=slice(10, 90)).mean("frequency")
    >>> found.sel(source="V1", target="V2").round(1).item()  # log(1 + 0.7^2) = 0.4
    0.4
    >>> found.sel(source="V2", target="V1").item() < 0.02
    True
    """
    where = "spectral_granger"
    array, rate, _ = labelled_signal(signal, where)
    dim = channel_dim(array, where)
    chosen = tapers or Tapers()
    _check_pairs(array, dim, where)
    drift = power_drift(array)
    if drift > check_number(where, "max_drift", max_drift, low=1.0):
        found = f"power that changes {drift:.3g}-fold from one quarter of the trials to another"
        advice = "Leave out the onset, take off slow drifts, or give more trials."
        raise ValueError(refusal(where, found, f"at most {max_drift:g}-fold", advice))
    spectrum, n, n_averaged = two_sided(array, chosen, where)
    if n_averaged < MIN_SPECTRA:
        found = f"{n_averaged} spectra to average (tapers times segments times trials)"
        advice = "Give more trials, shorter segments or a wider half_bandwidth."
        raise ValueError(refusal(where, found, f"at least {MIN_SPECTRA}", advice))
    if not (np.real(np.einsum("faa->fa", spectrum)) > 0).all():
        found = "a channel without power at some frequency"
        raise ValueError(refusal(where, found, "power above 0", "Drop silent channels."))
    return labelled_pairs(
        array[dim].values, np.fft.rfftfreq(n, 1.0 / rate).astype(np.float64), spectrum
    )


def labelled_pairs(
    names: NDArray[np.generic], frequency: Floats, spectrum: Complex
) -> xr.DataArray:
    """Factorise the two-sided spectrum (frequency, channel, channel) of every pair and label it."""
    size = len(names)
    values = np.full((size, size, frequency.size), np.nan)
    pairs = list(combinations(range(size), 2))
    chosen = np.stack([spectrum[:, pair][:, :, pair] for pair in pairs])
    transfer, noise = spectral_factor(chosen)
    found = pair_granger(transfer, noise)[:, : frequency.size]
    for (a, b), one in zip(pairs, found, strict=True):
        values[a, b], values[b, a] = one[:, 0], one[:, 1]
    coords = {"source": names, "target": names, "frequency": frequency}
    return xr.DataArray(values, coords, ("source", "target", "frequency"), name="granger")


def pair_granger(transfer: Complex, noise: Floats) -> Floats:
    """Return Geweke's causality of a pair with known transfer function and noise.

    Parameters
    ----------
    transfer : (..., frequency, 2, 2)
        H, the answer of each channel (row) to what is new in each (column).
    noise : (..., 2, 2)
        Covariance of what is new, in the units that make the spectrum H noise H*.

    Returns
    -------
    granger : (..., frequency, 2)
        From channel 0 to 1, and from 1 to 0; nats.

    Examples
    --------
    >>> transfer = np.array([[[1.0, 0.0], [0.7j, 1.0]]])
    >>> pair_granger(transfer, np.diag([4.0, 0.5])).round(4)
    array([[1.5933, 0.    ]])
    """
    noise = noise[..., None, :, :]
    spectrum = np.real(np.einsum("...ij,...jk,...ik->...i", transfer, noise, transfer.conj()))
    found = np.empty(spectrum.shape)
    for a, b in ((0, 1), (1, 0)):
        own = noise[..., a, a] - noise[..., a, b] ** 2 / noise[..., b, b]
        caused = np.maximum(own, 0.0) * np.abs(transfer[..., b, a]) ** 2
        # Of rounding: what is caused never exceeds what there is.
        found[..., a] = -np.log1p(-np.minimum(caused / spectrum[..., b], 1.0 - 1e-12))
    return found


def spectral_factor(
    spectrum: Complex, *, tol: float = 1e-8, max_steps: int = 200
) -> tuple[Complex, Floats]:
    r"""Factorise spectral matrices into a causal transfer function and a noise covariance.

    Wilson's algorithm, Newton steps towards :math:`\psi` with :math:`S = \psi\psi^*` and no
    negative lags; then :math:`H = \psi\psi_0^{-1}`, :math:`\Sigma = \psi_0\psi_0^\top` with
    :math:`\psi_0` the lag 0 of :math:`\psi`.

    Parameters
    ----------
    spectrum : (..., frequency, channel, channel)
        Two-sided, at ``np.fft.fftfreq``, Hermitian and positive definite. The frequencies must lie
        close enough for lags beyond half their number to have died out.
    tol
        Stop once every matrix is reproduced to this share of itself, at every frequency.
    max_steps
        Give up after so many steps.

    Returns
    -------
    transfer : (..., frequency, channel, channel)
        H, 1 at lag 0.
    noise : (..., channel, channel)
        Sigma.

    Raises
    ------
    ValueError
        If a matrix is not Hermitian and positive definite.
    RuntimeError
        If it does not converge.

    References
    ----------
    Wilson (1972), https://doi.org/10.1137/0123044

    Examples
    --------
    >>> turn = np.exp(-2j * np.pi * np.fft.fftfreq(64))
    >>> spectrum = 4.0 * np.abs(1 + 0.7 * turn)[:, None, None] ** 2
    >>> transfer, noise = spectral_factor(spectrum)
    >>> noise.round(6), bool(np.allclose(transfer[:, 0, 0], 1 + 0.7 * turn))
    (array([[4.]]), True)
    """
    where = "spectral_factor"
    spectrum = np.asarray(spectrum, dtype=np.complex128)
    if spectrum.ndim < 3 or spectrum.shape[-1] != spectrum.shape[-2]:
        found = f"a spectrum of shape {spectrum.shape}"
        raise ValueError(refusal(where, found, "(..., frequency, channel, channel)"))
    # Solve for correlations: channels may differ by many orders of magnitude.
    scale = _scale(spectrum, where)
    scaled = spectrum / (scale[..., None, :, None] * scale[..., None, None, :])
    psi = _wilson(scaled, where, tol, max_steps)
    lag_0 = np.real(psi.mean(axis=-3))
    transfer = psi @ np.linalg.inv(lag_0)[..., None, :, :]
    ratio = scale[..., :, None] / scale[..., None, :]
    noise = lag_0 @ np.swapaxes(lag_0, -1, -2)
    return transfer * ratio[..., None, :, :], noise * scale[..., :, None] * scale[..., None, :]


def _scale(spectrum: Complex, where: str) -> Floats:
    """Return the standard deviation of every channel, or refuse what is no spectrum."""
    check_array(where, "spectrum", np.abs(spectrum))
    power = np.real(np.einsum("...aa->...a", spectrum)).mean(axis=-2)
    size = np.abs(spectrum).max()
    mirrored = np.roll(np.flip(spectrum, -3), 1, axis=-3)
    hermitian = np.allclose(spectrum, np.swapaxes(spectrum, -1, -2).conj(), atol=1e-9 * size)
    if not hermitian or not np.allclose(spectrum, mirrored.conj(), atol=1e-9 * size):
        found = "matrices that are no spectrum of real signals"
        expected = "Hermitian ones, conjugate at negative frequencies, as at np.fft.fftfreq"
        raise ValueError(refusal(where, found, expected))
    if not (power > 0).all() or not (np.linalg.eigvalsh(spectrum) > 0).all():
        found = "a spectral matrix that is not positive definite"
        advice = "Average more spectra; drop channels that are silent or copies of others."
        raise ValueError(refusal(where, found, "positive definite ones", advice))
    scale: Floats = np.sqrt(power)
    return scale


def _wilson(spectrum: Complex, where: str, tol: float, max_steps: int) -> Complex:
    n, identity = spectrum.shape[-3], np.eye(spectrum.shape[-1])
    start = np.linalg.cholesky(np.real(spectrum.mean(axis=-3)))
    psi: Any = np.broadcast_to(start[..., None, :, :], spectrum.shape).astype(np.complex128)
    missed = np.inf
    for _ in range(max_steps):
        ratio: Any = np.linalg.solve(psi, spectrum)
        ratio = np.linalg.solve(psi, np.swapaxes(ratio, -1, -2).conj())
        missed = float(np.abs(ratio - identity).max())
        if missed < tol:
            factor: Complex = psi
            return factor
        psi = psi @ _causal(ratio + identity, n)
    found = f"factors that miss the spectrum by {missed:.2g} of it after {max_steps} steps"
    advice = "Take longer segments or a wider half_bandwidth: sharp lines resist."
    raise RuntimeError(refusal(where, found, f"below {tol:g}", advice))


def _causal(values: Complex, n: int) -> Complex:
    """Return the part with positive lags whose sum with its own adjoint is `values`."""
    lags = np.fft.ifft(values, axis=-3)
    # Lag 0 is shared with the adjoint: the upper triangle is this part's, the lower the other's.
    lags[..., 0, :, :] = np.triu(lags[..., 0, :, :])
    diagonal = np.arange(lags.shape[-1])
    lags[..., 0, diagonal, diagonal] *= 0.5
    if n % 2 == 0:
        lags[..., n // 2, :, :] *= 0.5
    lags[..., n // 2 + 1 :, :, :] = 0.0
    causal: Complex = np.fft.fft(lags, axis=-3)
    return causal


def directed_asymmetry(
    influence: xr.DataArray, *, forward: tuple[str, str], band: tuple[float, float]
) -> xr.DataArray:
    r"""Return the directed-influence asymmetry index of a pair in a band, from -1 to 1.

    .. math:: DAI = \frac{G_{a\to b} - G_{b\to a}}{G_{a\to b} + G_{b\to a}}

    of the means over the band; 1: forward only.

    Parameters
    ----------
    influence : (source, target, frequency, ...)
        From `spectral_granger`, nats.
    forward
        Labels of the source and of the target of the forward direction.
    band
        Lowest and highest frequency, both included.

    Returns
    -------
    index
        0 where there is no influence at all, NaN where it was not measured.

    Raises
    ------
    ValueError
        If the band holds no frequency, or the labels are not there or equal.

    References
    ----------
    Bastos et al. (2015), https://doi.org/10.1016/j.neuron.2014.12.018

    Examples
    --------
    >>> values = np.array([[[np.nan] * 2, [0.3, 0.3]], [[0.1, 0.1], [np.nan] * 2]])
    >>> found = xr.DataArray(values, dims=("source", "target", "frequency"),
    ...     coords={"source": ["V1", "V2"], "target": ["V1", "V2"], "frequency": [60.0, 70.0]})
    >>> round(directed_asymmetry(found, forward=("V1", "V2"), band=(60.0, 80.0)).item(), 6)
    0.5
    """
    where = "directed_asymmetry"
    if forward[0] == forward[1]:
        found = f"{forward[0]!r} as source and as target"
        raise ValueError(refusal(where, found, "two channels", "Name the pair."))
    known = influence["source"].values.tolist()
    for name in forward:
        if name not in known:
            found, expected = f"channel {name!r}", f"one of {', '.join(map(repr, known))}"
            raise ValueError(refusal(where, found, expected))
    low, high = map(float, band)
    frequency = influence["frequency"].values
    # Frequencies are quotients in floating point: an end may miss its own by rounding.
    among = np.flatnonzero((frequency >= low * (1 - 1e-9)) & (frequency <= high * (1 + 1e-9)))
    inside = influence.isel(frequency=among)
    if among.size == 0:
        found = f"no frequency from {band[0]:.6g} to {band[1]:.6g} Hz"
        raise ValueError(refusal(where, found, "at least one", "Take longer segments."))
    mean = inside.mean("frequency")
    ahead = mean.sel(source=forward[0], target=forward[1], drop=True)
    back = mean.sel(source=forward[1], target=forward[0], drop=True)
    total = ahead + back
    index = ((ahead - back) / total.where(total > 0)).where(~(total <= 0), 0.0)
    return index.rename("directed_asymmetry")


def labelled_channels(
    signal: xr.Dataset | xr.DataArray, where: str, *, pairs: bool = False
) -> tuple[Floats, NDArray[np.generic], float]:
    """Return values (trial, time, channel), the channels' labels and samples per second."""
    array, rate, _ = labelled_signal(signal, where)
    dim = channel_dim(array, where)
    if pairs:
        _check_pairs(array, dim, where)
    array = array if "trial" in array.dims else array.expand_dims("trial")
    values = array.transpose("trial", "time", dim).to_numpy().astype(np.float64)
    return values, array[dim].values, rate


def _check_pairs(array: xr.DataArray, dim: str, where: str) -> None:
    if array.sizes[dim] < 2:
        raise ValueError(refusal(where, "one channel", "at least two", "Causality needs a pair."))
    if dim not in array.coords:
        return
    names = array[dim].values
    if len(set(names.tolist())) < len(names):
        raise ValueError(refusal(where, f"{dim} labels with repeats", "each once", "Rename them."))


def power_drift(signal: xr.Dataset | xr.DataArray) -> float:
    """Return how many times the power of one quarter of the trials exceeds that of another.

    The largest ratio of any channel; power about the mean of the channel, averaged over trials. A
    stationary signal comes close to 1 when there is much of it, a random walk to 7.

    Parameters
    ----------
    signal
        As for `spectral_granger`; silent channels count as 1.

    Examples
    --------
    >>> time = np.arange(400) / 200
    >>> wave = np.random.default_rng(5).normal(size=(50, 400, 1)) * (1 + (time > 1))[:, None]
    >>> wave = xr.DataArray(wave, dims=("trial", "time", "site"), coords={"time": time})
    >>> round(power_drift(wave))
    4
    """
    values, _, _ = labelled_channels(signal, "power_drift")
    values = values - values.mean(axis=(0, 1))
    quarters = np.array_split(values, 4, axis=1)
    power = np.stack([(part**2).mean(axis=(0, 1)) for part in quarters])
    least = np.maximum(power.min(axis=0), np.finfo(float).tiny)
    return float(np.max(np.where(power.max(axis=0) > 0, power.max(axis=0) / least, 1.0)))
