"""H22: what was learned to come evokes less, the more the one contingently predicts the other."""

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
from pcsim.model import Model, lesion
from pcsim.protocols import (
    cannot_hear,
    contrast_index,
    equal_patches,
    lacks,
    listen,
    respond,
    responsive,
    signal_role,
    visual_field,
)
from pcsim.responses import select
from pcsim.stimulus import stimulus_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HYPOTHESIS"]

N_ITEMS = 10
EXPOSED = ((0, 1), (2, 3), (2, 4), (5, 6), (7, 6), (8, -1))
"""Pairs shown equally often: leading and trailing item, -1 for nothing. 0 and 1 belong to each
other alone; 2 leads to 3 and 4; 6 comes after 5 and 7; nothing follows 8."""
TESTED = {"both": (0, 5, 1), "forward": (2, 0, 3), "backward": (5, 2, 6)}
"""What is halved in exposure, P(trailing | leading) "forward" or P(leading | trailing) "backward"
-> a leader, one of another pair, and the trailing item that is read after each."""
NEUTRAL = 8
N_EXPOSURES = {"quick": (8, 80), "full": (32, 320)}
"""Of every pair: tones, images."""
N_DRAWS = {"quick": (2, 1), "full": (8, 3)}
TONE, INTERVAL, PERIOD, FRAME = 0.075, 0.25, 1.1, 0.025
"""Seconds of a tone, from leading to trailing onset, and from pair to pair."""
WINDOW = 0.15
"""Seconds from the onset of the trailing item that are read; images stay as long."""
CONTRAST = 0.2
N_SEEN, STEP = 4, 0.025
"""Exposures of every pair that what only adapts sees, and seconds between its recorded times."""


def tests() -> list[tuple[str, str, int, int]]:
    """Return the pairs that are tested: contingency, role, leading, trailing item."""
    out = []
    for name, (own, other, trailing) in TESTED.items():
        out += [(name, "predicted", own, trailing), (name, "unpredicted", other, trailing)]
    return [*out, ("both", "neutral", NEUTRAL, TESTED["both"][2])]


def missing(model: Model) -> str:
    """Return why a model cannot be asked."""
    if getattr(model, "senses", "images") == "tones":
        return cannot_hear(model, n_tones=N_ITEMS)
    if callable(getattr(model, "exposed", None)):
        return lacks(model, 1, ("error",))
    if getattr(model, "tau_adaptation", None) is not None:
        return lacks(model, 1)
    return "it learns no sequences, neither within a run nor by training on them"


def observe(model: Model, *, seed: int, scale: str) -> xr.Dataset:
    """Expose the model to the pairs and test it on them, on others and on a neutral one."""
    hears = getattr(model, "senses", "images") == "tones"
    n_exposures, n_draws = (one[scale][0 if hears else 1] for one in (N_EXPOSURES, N_DRAWS))
    seeds = [seed + 1000 * number for number in range(n_draws)]
    if hears:
        draws = [after_tones(model, n_exposures=n_exposures, seed=one) for one in seeds]
    elif callable(getattr(model, "exposed", None)):
        draws = [after_training(model, n_exposures=n_exposures, seed=one) for one in seeds]
    else:
        turns = range(len(TESTED))
        draws = [after_images(model, seed=one, turn=turn) for one in seeds for turn in turns]
    return summary(np.mean(draws, axis=0))


def summary(halves: Any) -> xr.Dataset:
    """Return the indices of every unit, given its responses to the tests.

    Parameters
    ----------
    halves : (2, test, unit)
        Mean of the rate above 0, and of the rate below 0 (as a size).
    """
    size = np.asarray(halves).sum(axis=0)
    place = {(name, role): i for i, (name, role, _, _) in enumerate(tests())}

    def index(one: tuple[str, str], other: tuple[str, str], of: Any = size) -> Any:
        return contrast_index(of[place[one]], of[place[other]])

    pairs = {name: ((name, "unpredicted"), (name, "predicted")) for name in TESTED}
    values = {
        **{name: index(*pair) for name, pair in pairs.items()},
        "suppression": index(("both", "neutral"), ("both", "predicted")),
        "enhancement": index(("both", "unpredicted"), ("both", "neutral")),
        "positive": index(*pairs["both"], halves[0]),
        "negative": index(*pairs["both"], halves[1]),
    }
    return xr.Dataset(
        {
            **{name: ("unit", value) for name, value in values.items()},
            "included": ("unit", responsive(size)),
        }
    )


def halves_of(rate: Any, axis: int) -> Any:
    """Return the means over time of what is above 0 and of what is below it, stacked."""
    return np.stack([np.maximum(sign * rate, 0.0).mean(axis=axis) for sign in (1.0, -1.0)])


def after_tones(model: Model, *, n_exposures: int, seed: int) -> Any:
    """Play pairs of tones and then one test a trial; halves (2, test, unit) of the top level.

    What learns does so while it listens. Which tone is which item is drawn anew.
    """
    rng = np.random.default_rng([seed, 22])
    tone_of = rng.permutation(N_ITEMS)
    order = np.concatenate([rng.permutation(len(EXPOSED)) for _ in range(n_exposures)])
    stream = [EXPOSED[number] for number in order]
    sequences = [pairs_of_tones([*stream, (lead, trail)], tone_of) for _, _, lead, trail in tests()]
    heard, _ = listen(model, sequences, seed=seed)
    top = heard[max(heard)]
    onset = PERIOD * len(stream) + INTERVAL
    during = (top.time > onset + 1e-6) & (top.time <= onset + WINDOW + 1e-6)
    return halves_of(top.rate[:, during], 1)


def pairs_of_tones(pairs: Sequence[tuple[int, int]], tone_of: Any) -> xr.DataArray:
    """Return pairs of tones, (1, time, feature), with the labels of a sequence of tones."""
    per_pair = round(PERIOD / FRAME)
    values = np.zeros((len(pairs), per_pair, N_ITEMS))
    slot = np.full((len(pairs), per_pair), -1)
    tone, role = np.full(slot.shape, -1), np.full(slot.shape, "silence", dtype="<U8")
    for number, pair in enumerate(pairs):
        for place, item in enumerate(pair):
            start = place * round(INTERVAL / FRAME)
            during = slice(start, start + round(TONE / FRAME))
            if item >= 0:
                values[number, during, tone_of[item]] = 1.0
            tone[number, during] = tone_of[item] if item >= 0 else -1
            role[number, during] = ("leading", "trailing")[place]
            slot[number, during] = 2 * number + place
    stimulus = stimulus_array(
        values.reshape(1, -1, N_ITEMS), frame_duration=FRAME, condition="pairs"
    )
    return stimulus.assign_coords(
        tone=("time", tone.ravel()), role=("time", role.ravel()), slot=("time", slot.ravel())
    )


def after_training(model: Any, *, n_exposures: int, seed: int) -> Any:
    """Train on pairs of images, show one test a trial; halves (2, test, unit) of deepest errors."""
    items = images(model, seed)
    taught = model.exposed(
        show(model, items, [[pair] for pair in EXPOSED]), seed=seed, n_passes=n_exposures
    )
    responses = taught.run(show(model, items, [[pair] for pair in tested_pairs()]), seed=seed)
    errors = select(responses, population="error")
    return trailing(select(errors, level=int(errors["level"].values.max())), n_pairs=1)


def after_images(model: Any, *, seed: int, turn: int) -> Any:
    """Show pairs of images and one test in the run of a trial; halves (2, test, unit).

    For what adapts and does not learn. In three turns each leader that is tested takes the part of
    each other: what is due to its likeness to the trailing image alone then cancels.
    """
    items = images(model, seed)
    leaders = [own for own, _, _ in TESTED.values()]
    items[leaders] = items[np.roll(leaders, turn)]
    rng = np.random.default_rng([seed, 22])
    order = np.concatenate([rng.permutation(len(EXPOSED)) for _ in range(N_SEEN)])
    stream = [EXPOSED[number] for number in order]
    role = signal_role(model, 1)
    assert role is not None
    stimulus = show(model, items, [[*stream, pair] for pair in tested_pairs()])
    responses = respond(model, stimulus, level=1, role=role, every=STEP, seed=seed)
    return trailing(responses, n_pairs=len(stream) + 1)


def images(model: Model, seed: int) -> Any:
    """Return the items, (11, y, x); the last one is grey."""
    patches = equal_patches(model, N_ITEMS, contrast=CONTRAST, seed=seed + 30_000)
    return np.concatenate([patches, np.full((1, *patches.shape[1:]), 0.5)])


def tested_pairs() -> list[tuple[int, int]]:
    """Return the leading and trailing items of the tests."""
    return [(lead, trail) for _, _, lead, trail in tests()]


def show(model: Model, items: Any, trials: Sequence[Sequence[tuple[int, int]]]) -> xr.DataArray:
    """Return the frames of each trial: grey, leading and trailing item of each of its pairs."""
    frames = [np.concatenate([items[[-1, *pair]] for pair in pairs]) for pairs in trials]
    _, px_per_deg = visual_field(model)
    return stimulus_array(np.stack(frames), frame_duration=WINDOW, px_per_deg=px_per_deg)


def trailing(responses: xr.Dataset, n_pairs: int) -> Any:
    """Return the halves of the rate while the last of `n_pairs` trailing images is shown."""
    late = select(responses, time=slice((3 * n_pairs - 1 + 0.01) * WINDOW, None))
    return halves_of(late["rate"].transpose("trial", "time", "unit").to_numpy(), 1)


def suppression(means: Means) -> Any:
    """Return the index of prediction suppression for the pair that is contingent both ways."""
    return means["both"]


def forward(means: Means) -> Any:
    """Return by how much halving P(trailing | leading) attenuates it."""
    return means["both"] - means["forward"]


def backward(means: Means) -> Any:
    """Return by how much halving P(leading | trailing) attenuates it."""
    return means["both"] - means["backward"]


def panel(evidence: Mapping[str, Sequence[xr.Dataset]], ax: Axes) -> None:
    """Draw prediction suppression at each contingency, and against a neutral leader."""
    from pcsim.plots import colour

    drawn = (
        ("AUD", "AUD", "error", "o"),
        ("PREDNET-s", "PREDNET", "latent", "s"),
        ("PREDNET-noE", "PREDNET, no error loss", "prediction", "D"),
        ("AUD-adapt", "adapting only", "control", "^"),
    )
    names = [*TESTED, "suppression", "enhancement"]
    for shift, (label, name, role, marker) in zip((-0.2, -0.07, 0.07, 0.2), drawn, strict=True):
        for replica, one in enumerate(evidence.get(label, ())):
            kept = one.isel(unit=one["included"].values)
            values = [float(kept[key].mean()) for key in names]
            ax.plot(
                np.arange(len(names)) + shift, values, linestyle="none", marker=marker,
                markersize=3.5, color=colour(role), label=None if replica else name,
            )  # fmt: skip
    ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    ticks = ("P = 1", "P(B|A)\nhalved", "P(A|B)\nhalved", "neutral -\npredicted")
    ax.set_xticks(range(len(names)), [*ticks, "unpredicted\n- neutral"], fontsize=6)
    ax.set_ylabel("Index")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize=6)


HYPOTHESIS = Hypothesis(
    id="H22",
    name="Sequence learning: prediction suppression by contingency",
    claim=(
        "A trailing image evokes less after the leader it was paired with in exposure than after "
        "another (Meyer & Olson 2011, PNAS 108:19401), and lowering P(trailing | leading) or "
        "P(leading | trailing) at equal joint probability attenuates this (Ramachandran et al. "
        "2016, J. Neurophysiol. 115:355)."
    ),
    family="temporal",
    protocol=(
        "Six pairs, equally often and in random order: one contingent both ways; one leader of two "
        "trailing items; two leaders of one trailing item; one leader of nothing. Models of "
        "images: natural patches, 0.15 s each, 80 (full: 320) exposures a pair by further training "
        "of all weights. Models of tones: tones of 75 ms at 0.25 s in pairs every 1.1 s, 8 "
        "(full: 32) exposures a pair within the run, 2 (full: 8) draws of the tones. Images are "
        "drawn once (full: 3 times). What only adapts sees 4 exposures in the run of the test, in "
        "three turns of its leading images. Then one pair a trial: the trailing item after its "
        "leader, after another pair's, after the neutral one."
    ),
    statistic=(
        "PSI = (unpredicted - predicted) / (unpredicted + predicted) of mean |rate| in 0-150 ms "
        "from the trailing onset, for the pair contingent both ways. Also: that PSI less the PSI "
        "of the pair with P(trailing | leading), or P(leading | trailing), of one half. Beside "
        "it, not judged: suppression below, and enhancement above, the response after a neutral "
        "leader; PSI of the positive and of the negative half of the rate, both above 0 if the "
        "signal is unsigned."
    ),
    signal="|error units| of the highest level, signed halves alike",
    falsified_if="PSI is not above 0, or does not depend on either conditional probability.",
    units="index",
    missing=missing,
    observe=observe,
    variables=(
        "both", "forward", "backward", "suppression", "enhancement", "positive", "negative",
    ),
    combine=suppression,
    null=0.0,
    direction=1,
    rope=(-0.01, 0.01),
    reference=Reference(
        status="read",
        source=(
            "Sign only. Macaque IT: weaker after the trained leader (Meyer et al. 2014, J. "
            "Neurosci. 34:9332, abstract); reducing either conditional probability attenuates it "
            "(Ramachandran et al. 2016, abstract). Weeks of exposure there."
        ),
    ),
    requirements=(
        Requirement(
            name="P(B|A)", statement="Halving it attenuates the suppression.", combine=forward
        ),
        Requirement(
            name="P(A|B)", statement="Halving it attenuates the suppression.", combine=backward
        ),
    ),
    controls=(
        Control(
            name="no learning",
            statement="The same model without plasticity adapts at most.",
            transform=lambda model, seed: lesion(model, plasticity=0.0),
        ),
        Control(
            name="adaptation",
            statement="Subunits that adapt to images know how often they came, not after what.",
            variant="ADAPT",
        ),
    ),
    departures=(
        "At most 320 exposures a pair, not thousands.",
        "Differences stand for the regression: with two values of each conditional probability "
        "they are half of its two coefficients.",
        "That the signal is unsigned is not judged: PSI of both halves of the rate is kept, "
        "of which the negative one is silent and 0 where signs have units of their own.",
        "The adapting control sees images, whatever the model under test senses.",
    ),
    version=2,
    expectations={
        "PREDNET-noE": "?", "PREDNET-untr": "?", "AUD": "?",
        "AUD-adapt": "-", "AUD-cut": "?", "AUD-one": "?",
    },
    panel=panel,
)  # fmt: skip
