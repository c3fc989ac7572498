r"""Multitaper spectra: power, cross-spectra and coherence of labelled signals.

Every segment is multiplied by :math:`K` orthogonal windows (Slepian sequences, DPSS) that gather
:math:`\pm W` Hz, and the :math:`K` spectra are averaged, over segments and trials too:

.. math:: S_{ab}(f) = \frac{1}{K r}\sum_k X_{ak}(f) X_{bk}^*(f), \qquad
    X_{ak}(f) = \sum_t w_k(t)\, a(t)\, e^{-2\pi i f t / r}

with :math:`r` samples per second and :math:`\sum_t w_k^2 = 1`. Spectra are one-sided densities:
they sum, times the frequency step, to the variance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pcsim.measures.spectra import _sampling as sampling
from pcsim.messages import check_choice, check_integer, check_number, refusal
from pcsim.responses import check_responses

__all__ = [
    "Tapers",
    "chance_coherence",
    "channel_dim",
    "coherence",
    "cross_spectrum",
    "labelled_signal",
    "multitaper_spectrum",
    "two_sided",
]

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

CENTRES = ("segment", "ensemble", "none")
AT_ONCE = 2_000_000
"""Samples that are transformed at once, so that many units do not fill the memory."""


@dataclass(frozen=True, kw_only=True)
class Tapers:
    """How a signal is cut and tapered.

    Parameters
    ----------
    half_bandwidth
        W, Hz: a line in the spectrum spreads over twice that.
    segment
        Length of the segments, seconds, side by side; what is left at the end is dropped. None
        takes each trial as a whole.
    n_tapers
        K; None takes 2 T W - 1, all that are well concentrated, with T the length of the segments.
    centre
        What is taken off: the mean of every "segment"; the mean over trials at every time
        ("ensemble"), which is what is locked to the stimulus; or "none".

    References
    ----------
    Thomson (1982), https://doi.org/10.1109/PROC.1982.12433
    """

    half_bandwidth: float = 3.0
    segment: float | None = None
    n_tapers: int | None = None
    centre: str = "segment"

    def windows(self, where: str, rate: float, n_samples: int) -> Floats:
        """Return the windows (taper, sample) for trials of `n_samples` at `rate` Hz."""
        check_choice(where, "centre", self.centre, CENTRES)
        width = check_number(where, "half_bandwidth", self.half_bandwidth, positive=True)
        n = n_samples
        if self.segment is not None:
            n = round(check_number(where, "segment", self.segment, positive=True) * rate)
        if not 8 <= n <= n_samples:
            found = f"segments of {n} samples in trials of {n_samples}"
            advice = f"At {rate:.6g} Hz a segment takes {8 / rate:.6g} to {n_samples / rate:.6g} s."
            raise ValueError(refusal(where, found, f"8 to {n_samples}", advice))
        product = width * n / rate
        # Segments are whole samples long: 2 T W may miss an integer by a little.
        most = int(2 * product + 0.05) - 1
        if most < 1 or product >= n / 2:
            found = f"half_bandwidth {width:.6g} Hz in segments of {n / rate:.6g} s"
            expected = f"from {rate / n:.6g} to below {rate / 2:.6g} Hz"
            raise ValueError(refusal(where, found, expected, "Take longer segments or a wider W."))
        number = most
        if self.n_tapers is not None:
            number = check_integer(where, "n_tapers", self.n_tapers, low=1)
        if number > most:
            found = f"{number} tapers for T W = {product:.4g}"
            advice = "The others leak: take fewer, longer segments or a wider half_bandwidth."
            raise ValueError(refusal(where, found, f"at most {most}", advice))
        from scipy.signal.windows import dpss

        return np.asarray(dpss(n, product, number), dtype=np.float64)


def multitaper_spectrum(
    signal: xr.Dataset | xr.DataArray, tapers: Tapers | None = None
) -> xr.DataArray:
    """Return the power spectrum of every channel, averaged over tapers, segments and trials.

    Parameters
    ----------
    signal
        Responses, of which `lfp` is taken, or any array with dimension `time` at even steps, such
        as ``responses["rate"]``.
    tapers
        How to cut and taper; None: plus and minus 3 Hz over whole trials.

    Returns
    -------
    spectrum : (..., frequency)
        Power per Hz; frequencies in Hz from 0 to half the sampling rate. Labels stay.

    Raises
    ------
    ValueError
        If times are uneven, segments too long or short, or the bandwidth does not fit them.

    Examples
    --------
    >>> time = np.arange(1, 1001) / 500
    >>> wave = xr.DataArray(3 * np.sin(2 * np.pi * 40 * time), dims="time", coords={"time": time})
    >>> spectrum = multitaper_spectrum(wave)
    >>> step = float(spectrum.frequency[1])
    >>> inside = spectrum.sel(frequency=slice(35, 45))
    >>> step, round(float(inside.sum()) * step, 2)
    (0.5, 4.5)
    """
    where = "multitaper_spectrum"
    array, rate, n_samples = labelled_signal(signal, where)
    windows = (tapers or Tapers()).windows(where, rate, n_samples)
    centre = (tapers or Tapers()).centre
    others = [str(dim) for dim in array.dims if dim not in ("trial", "time")]
    values, averaged = _trials_first(array, others, centre, where)
    flat = values.reshape(values.shape[0], -1, n_samples)
    power = np.empty((flat.shape[1], windows.shape[1] // 2 + 1))
    chunk = max(1, AT_ONCE // (flat.shape[0] * n_samples))
    for start in range(0, flat.shape[1], chunk):
        here = slice(start, start + chunk)
        total = [(np.abs(x) ** 2).mean((0, 2)) for x in transforms(flat[:, here], windows, centre)]
        power[here] = np.mean(total, axis=0) / rate
    power *= one_sided(windows.shape[1])
    frequency = np.fft.rfftfreq(windows.shape[1], 1.0 / rate)
    shape = (*(array.sizes[dim] for dim in others), frequency.size)
    labels = array.isel(time=0, drop=True)
    labels = labels.isel(trial=0, drop=True) if averaged else labels
    coords = {**labels.coords, "frequency": frequency}
    return xr.DataArray(power.reshape(shape), coords, (*others, "frequency"), name="power")


def cross_spectrum(signal: xr.Dataset | xr.DataArray, tapers: Tapers | None = None) -> xr.DataArray:
    """Return the cross-spectra of all pairs of channels.

    Parameters
    ----------
    signal
        Responses, of which `lfp` is taken, or an array (trial, time, channel) or (time, channel),
        whatever the name of its channels' dimension.
    tapers
        As for `multitaper_spectrum`.

    Returns
    -------
    spectrum : (source, target, frequency)
        Complex, per Hz; power on the diagonal. A target that lags its source has a phase
        ``+2 pi f lag``. Source and target carry the channels' labels.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> two = xr.DataArray(rng.normal(size=(30, 400, 2)), dims=("trial", "time", "site"),
    ...                    coords={"time": np.arange(400) / 200, "site": ["V1", "V2"]})
    >>> spectrum = cross_spectrum(two)
    >>> spectrum.dims, spectrum.source.values.tolist()
    (('source', 'target', 'frequency'), ['V1', 'V2'])
    """
    where = "cross_spectrum"
    array, rate, _ = labelled_signal(signal, where)
    dim = channel_dim(array, where)
    full, n, _ = two_sided(array, tapers or Tapers(), where)
    frequency = np.fft.rfftfreq(n, 1.0 / rate)
    half = np.moveaxis(full[: frequency.size], 0, -1) * one_sided(n)
    names = array[dim].values
    coords = {"source": names, "target": names, "frequency": frequency}
    return xr.DataArray(half, coords, ("source", "target", "frequency"), name="cross_spectrum")


def coherence(signal: xr.Dataset | xr.DataArray, tapers: Tapers | None = None) -> xr.DataArray:
    r"""Return the squared coherence of all pairs of channels, from 0 to 1.

    .. math:: C_{ab}(f) = \frac{|S_{ab}|^2}{S_{aa} S_{bb}}

    Of independent signals it is 1/n on average, with n the number of averaged spectra (tapers times
    segments times trials).

    Parameters
    ----------
    signal, tapers
        As for `cross_spectrum`.

    Returns
    -------
    coherence : (source, target, frequency)

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> one = rng.normal(size=(40, 400, 1))
    >>> two = np.concatenate([one, one + rng.normal(size=one.shape)], axis=2)
    >>> two = xr.DataArray(two, dims=("trial", "time", "site"),
    ...                    coords={"time": np.arange(400) / 200})
    >>> round(float(coherence(two).sel(source=0, target=1).mean()), 1)
    0.5
    """
    spectrum = cross_spectrum(signal, tapers)
    power = np.real(np.einsum("iif->if", spectrum.to_numpy()))
    if not (power > 0).all():
        found = "a channel without power at some frequency"
        raise ValueError(refusal("coherence", found, "power above 0", "Drop silent channels."))
    squared = np.abs(spectrum.to_numpy()) ** 2 / (power[:, None] * power[None])
    return spectrum.copy(data=squared).rename("coherence")


def chance_coherence(
    signal: xr.Dataset | xr.DataArray, tapers: Tapers | None = None
) -> xr.DataArray:
    r"""Return the squared coherence that independent channels of these powers have on average.

    .. math:: \frac{\sum_k P_{ak} P_{bk}}{\sum_k P_{ak} \sum_k P_{bk}}

    over the n averaged spectra k. It is 1/n if power is the same in all of them, and more if a few
    segments, such as those of strong stimuli, hold most of it in both channels.

    Parameters
    ----------
    signal, tapers
        As for `cross_spectrum`.

    Returns
    -------
    chance : (source, target, frequency)

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> two = xr.DataArray(rng.normal(size=(30, 400, 2)), dims=("trial", "time", "site"),
    ...                    coords={"time": np.arange(400) / 200})
    >>> chance = chance_coherence(two).sel(source=0, target=1)
    >>> round(30 * 11 * float(chance.mean()), 1)
    1.0
    """
    where = "chance_coherence"
    array, rate, n_samples = labelled_signal(signal, where)
    dim, chosen = channel_dim(array, where), tapers or Tapers()
    windows = chosen.windows(where, rate, n_samples)
    values, _ = _trials_first(array, [dim], chosen.centre, where)
    power = np.stack([np.abs(x) ** 2 for x in transforms(values, windows, chosen.centre)])
    total = power.sum((0, 1, 3))
    if not (total > 0).all():
        found = "a channel without power at some frequency"
        raise ValueError(refusal(where, found, "power above 0", "Drop silent channels."))
    shared = np.einsum("krasf,krbsf->abf", power, power) / (total[:, None] * total[None])
    frequency = np.fft.rfftfreq(windows.shape[1], 1.0 / rate)
    names = array[dim].values
    coords = {"source": names, "target": names, "frequency": frequency}
    return xr.DataArray(shared, coords, ("source", "target", "frequency"), name=where)


def two_sided(array: xr.DataArray, tapers: Tapers, where: str) -> tuple[Complex, int, int]:
    """Return the two-sided cross-spectra of an array with one dimension of channels.

    Returns
    -------
    spectrum : (frequency, channel, channel)
        At ``np.fft.fftfreq``, per Hz, Hermitian.
    n
        Number of frequencies: samples of a segment.
    n_averaged
        Number of averaged spectra: tapers times segments times trials.
    """
    _, rate, n_samples = labelled_signal(array, where)
    windows = tapers.windows(where, rate, n_samples)
    values, _ = _trials_first(array, [channel_dim(array, where)], tapers.centre, where)
    n = windows.shape[1]
    total: Any = 0.0
    count = 0
    for x in transforms(values, windows, tapers.centre):
        # x (trial, channel, segment, frequency): S_ab = < X_a X_b* >.
        total = total + np.einsum("rasf,rbsf->fab", x, x.conj())
        count += x.shape[0] * x.shape[2]
    half = total / (count * rate)
    mirrored = half[1 : (n + 1) // 2][::-1].conj()
    return np.concatenate([half, mirrored]), n, count


def transforms(values: Floats, windows: Floats, centre: str) -> Iterator[Complex]:
    """Yield, for one taper after the other, the transforms (trial, channel, segment, frequency)."""
    n = windows.shape[1]
    n_segments = values.shape[-1] // n
    cut = values[..., : n_segments * n].reshape(*values.shape[:-1], n_segments, n)
    if centre == "segment":
        cut = cut - cut.mean(axis=-1, keepdims=True)
    for window in windows:
        yield np.fft.rfft(cut * window, axis=-1)


def one_sided(n: int) -> Floats:
    """Return the factors that fold the power at negative frequencies onto the positive ones."""
    factor = np.full(n // 2 + 1, 2.0)
    factor[0] = 1.0
    if n % 2 == 0:
        factor[-1] = 1.0
    return factor


def labelled_signal(
    signal: xr.Dataset | xr.DataArray, where: str
) -> tuple[xr.DataArray, float, int]:
    """Return the array of a signal, its samples per second and their number a trial."""
    if isinstance(signal, xr.Dataset):
        if "lfp" not in check_responses(signal, where):
            advice = "Give responses['rate'], or make an lfp with lfp_proxy."
            raise ValueError(refusal(where, "responses without lfp", "lfp among them", advice))
        signal = signal["lfp"]
    array: xr.DataArray = signal
    rate, n_samples = sampling(array, where)
    return array, rate, n_samples


def channel_dim(array: xr.DataArray, where: str) -> str:
    """Return the one dimension of an array besides trial and time."""
    others = [str(dim) for dim in array.dims if dim not in ("trial", "time")]
    if len(others) != 1:
        found = f"dims {tuple(map(str, array.dims))}"
        expected = "trial, time and one dimension of channels"
        raise ValueError(refusal(where, found, expected, "Select or average the others."))
    return others[0]


def _trials_first(
    array: xr.DataArray, others: list[str], centre: str, where: str
) -> tuple[Floats, bool]:
    """Return values (trial, ..., time), what is locked to the stimulus taken off if asked."""
    has_trials = "trial" in array.dims
    ordered = array.transpose(*(["trial"] if has_trials else []), *others, "time")
    values = np.asarray(ordered.to_numpy(), dtype=np.float64)
    values = values if has_trials else values[None]
    if centre == "ensemble":
        if values.shape[0] < 2:
            advice = "Take centre='segment' for a single trial."
            raise ValueError(refusal(where, "one trial", "several for centre 'ensemble'", advice))
        values = values - values.mean(axis=0)
    return values, has_trials
