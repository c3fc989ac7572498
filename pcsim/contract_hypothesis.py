"""The laws of hypotheses, and the model that answers with noise by which they are tried."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast
from zlib import crc32

import numpy as np
import xarray as xr

from pcsim import catalog, roster
from pcsim.contract_model import probe
from pcsim.hypothesis import Hypothesis, judge, observation
from pcsim.hypothesis_expectations import MARKS
from pcsim.messages import refusal
from pcsim.model import Learner
from pcsim.responses import check_responses, make_responses
from pcsim.verdict import Outcome

__all__ = ["NoiseModel", "false_calls", "hypothesis_laws", "sizes_by_scale"]

TEXTS = ("id", "name", "claim", "family", "protocol", "statistic", "signal")
NAMES_FULL = re.compile(r"\bfull(:| scale)")
"""How a protocol names the scale, as in "24 units (full: 64)" or "at full scale"."""
N_REPLICAS = 3
N_SPLITS, MOST_CALLS = 20, 5
"""With three replicas an interval is narrow: one call in ten is chance, six of twenty are not."""


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """A model with the units of another that answers every stimulus with noise.

    What a hypothesis finds in it comes from the statistic, not from the model.
    """

    original: Any
    labels: xr.Dataset
    """Responses of the original to a probe, whose units and time step are used."""
    seed: int = 0
    record_dt: float | None = None
    """Seconds between recorded times; those of the probe if None."""

    @property
    def field_shape(self) -> tuple[int, int] | None:
        """Rows and columns of the original's field."""
        return cast("tuple[int, int] | None", self.original.field_shape)

    @property
    def px_per_deg(self) -> float | None:
        """Pixels per degree of the original."""
        return cast("float | None", self.original.px_per_deg)

    @property
    def senses(self) -> str:
        """What the original is shown: "images" unless it says otherwise."""
        return str(getattr(self.original, "senses", "images"))

    @property
    def n_features(self) -> int | None:
        """Number of features that the original takes, if it takes no images."""
        return cast("int | None", getattr(self.original, "n_features", None))

    def run(
        self, stimulus: xr.DataArray, *, seed: int = 0, record: Sequence[str] | None = None
    ) -> xr.Dataset:
        """Return a random rate for each unit and trial, and a little more for each moment."""
        labels = self.labels
        if record is not None and "name" in labels.coords:
            labels = labels.isel(unit=np.isin(labels["name"].values, list(record)))
        step = self.record_dt or float(labels["time"][0])
        end = float(stimulus["time"][-1] + stimulus["frame_duration"])
        time = step * np.arange(1, max(round(end / step), 1) + 1)
        shape = (stimulus.sizes["trial"], time.size, labels.sizes["unit"])
        # A random function of the stimulus: what was shown twice is answered twice alike.
        rng = np.random.default_rng([self.seed, seed, crc32(stimulus.values.tobytes())])
        rate = rng.normal(size=(shape[0], 1, shape[2])) + 0.1 * rng.normal(size=shape)
        units = {str(n): c.values for n, c in labels.coords.items() if c.dims == ("unit",)}
        units.pop("unit", None)
        return make_responses(rate, time=time, units=units, trial=stimulus)


def hypothesis_laws(hypothesis: Any) -> Iterator[str]:
    """Yield every law that a hypothesis breaks."""
    if not isinstance(hypothesis, Hypothesis):
        found = f"a {type(hypothesis).__name__}"
        yield refusal("hypothesis", found, "a pcsim.hypothesis.Hypothesis", "Build it with that.")
        return
    yield from _text_laws(hypothesis)
    yield from _expectation_laws(hypothesis)
    yield from _control_laws(hypothesis)
    if hypothesis.absent():
        return  # Nothing can be shown to a model without the recordings.
    base = _capable(hypothesis)
    if base is None:
        advice = "Let `missing` return '' for a model that has the signal."
        found = "no model of the roster that has the signal"
        yield refusal(hypothesis.id, found, "one that has it", advice)
        return
    labels = base.run(probe(base, n_trials=1, n_frames=1), seed=0)
    noise = NoiseModel(original=base, labels=labels)
    yield from _observation_laws(hypothesis, noise)


def _text_laws(hypothesis: Hypothesis) -> Iterator[str]:
    where = hypothesis.id or "hypothesis"
    for name in TEXTS:
        if not str(getattr(hypothesis, name)).strip():
            yield refusal(where, f"an empty {name}", "a sentence", f"Fill in {name}.")
    falsifier = hypothesis.falsified_if
    texts = (falsifier,) if isinstance(falsifier, str) else falsifier
    if not texts or not all(text.strip() for text in texts):
        advice = "Say which result would refute the claim."
        yield refusal(where, "an empty falsified_if", "a falsifier", advice)
    for name in ("departures", "remembered"):
        found = getattr(hypothesis, name)
        if isinstance(found, str) or not all(text.strip() for text in found):
            advice = f"Give {name}=(...,), one sentence each."
            yield refusal(where, f"{name} {found!r}", "sentences", advice)
    if hypothesis.version < 1:
        yield refusal(where, f"version {hypothesis.version}", "a version from 1 on", "Count up.")
    sizes = ", ".join(sizes_by_scale(hypothesis.observe))
    if sizes and not NAMES_FULL.search(hypothesis.protocol):
        advice = f"Give the numbers of both: pcsim.protocols.by_scale({sizes.split(', ')[0]})."
        found = f"a protocol that gives one scale's numbers, though {sizes} has two"
        yield refusal(where, found, "'(full: ...)' in the protocol", advice)
    for control in hypothesis.controls:
        if not control.name.strip() or not control.statement.strip():
            advice = "Say in a sentence why it must fail."
            yield refusal(where, f"control {control.name!r} without text", "both texts", advice)
    if hypothesis.reference.interval is None and hypothesis.reference.value is None:
        return
    if not hypothesis.reference.source.strip():
        advice = "Give the paper and the place in it."
        yield refusal(where, "a reference number without a source", "its source", advice)


def sizes_by_scale(observe: Callable[..., Any]) -> list[str]:
    """Return the names of what differs between scales in the file that `observe` stands in."""
    while isinstance(observe, partial):
        observe = observe.func
    names = getattr(observe, "__globals__", {})
    return [
        name
        for name, value in names.items()
        if isinstance(value, Mapping) and set(value) == set(roster.SCALES)
    ]


def _expectation_laws(hypothesis: Hypothesis) -> Iterator[str]:
    labels = [variant.label for variant in roster.ROSTER]
    marks = {label: hypothesis.expected(label) for label in labels}
    stated = {label: mark for label, mark in marks.items() if mark}
    if not stated:
        advice = "Write what you expect of each column before the first run."
        yield refusal(hypothesis.id, "no expectations", f"marks {' '.join(MARKS)}", advice)
    for label, mark in stated.items():
        if mark not in MARKS:
            expected = f"one of {' '.join(MARKS)}"
            yield refusal(hypothesis.id, f"expectation {mark!r} for {label}", expected)
    for label, mark in hypothesis.expectations.items():
        if label in marks and mark != marks[label]:
            found = f"expectation {mark!r} for {label}"
            expected = f"{marks[label]!r}, as the battery's table has it"
            yield refusal(hypothesis.id, found, expected, "What was written first stands.")


def _control_laws(hypothesis: Hypothesis) -> Iterator[str]:
    for control in hypothesis.controls:
        if control.variant is not None:
            try:
                roster.variant(control.variant)
            except ValueError as error:
                yield str(error)


def _capable(hypothesis: Hypothesis) -> Any:
    """The first circuit of the roster that has the signal, untrained; None if none has it."""
    for variant in roster.ROSTER:
        model = catalog.load("circuits", variant.circuit)
        if not hypothesis.missing(model):
            return cast(Any, model).untrained(seed=0) if isinstance(model, Learner) else model
    return None


def _observation_laws(hypothesis: Hypothesis, noise: NoiseModel) -> Iterator[str]:
    first, responses = observation(hypothesis, noise, seed=5, scale="quick")
    again, _ = observation(hypothesis, noise, seed=5, scale="quick")
    if not first.identical(again):
        advice = "Draw stimuli from np.random.default_rng(seed) alone."
        found = "other evidence from the same model and seed"
        yield refusal(f"{hypothesis.id}.observe", found, "the same, bit by bit", advice)
    if responses is not None:
        try:
            check_responses(responses, f"{hypothesis.id}.observe responses")
        except (TypeError, ValueError) as error:
            yield str(error)
    calls = false_calls(hypothesis, first)
    if calls > MOST_CALLS:
        found = f"an effect called in {calls} of {N_SPLITS} splits of evidence that is noise"
        advice = "Average within units first, and compare with a control that is selected alike."
        yield refusal(f"{hypothesis.id} null", found, f"at most {MOST_CALLS}", advice)


def false_calls(hypothesis: Hypothesis, evidence: xr.Dataset) -> int:
    """Return how often an effect is called where there is none.

    The included units of a model that answers with noise are dealt at random to three replicas of
    the model and three of every control, so that model and control differ by chance alone.
    """
    rng = np.random.default_rng(0)
    # Units that are dealt out are shared no more.
    hypothesis = replace(hypothesis, shared=())
    units = np.flatnonzero(evidence["included"].values)
    calls = 0
    for _ in range(N_SPLITS):
        parts = np.array_split(rng.permutation(units), 2 * N_REPLICAS)
        dealt = [evidence.isel(unit=np.sort(part)) for part in parts]
        ours, theirs = dealt[:N_REPLICAS], dealt[N_REPLICAS:]
        controls = {control.name: theirs for control in hypothesis.controls}
        seeds = range(N_REPLICAS)
        verdict = judge(hypothesis, "noise", ours, controls, seeds=seeds, draws=400)
        calls += verdict.verdict in (Outcome.SUPPORTED, Outcome.QUALITATIVE)
    return calls
