"""The attention circuit is MAP inference at the precision that attention sets; parts of H34."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pcsim import catalog
from pcsim.analysis import attention_gain as h34
from pcsim.brian import run_brian
from pcsim.circuit import settle, simulate
from pcsim.circuits import feldman_friston_2010 as ff
from pcsim.hierarchy import Hierarchy, Level
from pcsim.inference import map_exact
from pcsim.measures import naka_rushton
from pcsim.priors import GaussianPrior
from pcsim.protocols import attention as protocol
from pcsim.stimuli import gratings
from pcsim.stimulus import stimulus_array

ATTENDED = {"attention_gain": 4.0, "attention_x": 0.3, "attention_sigma": 0.4}


def circuit(**changes):
    return replace(catalog.load("circuits", "feldman_friston_2010"), gain=6.0, **changes)


def picture(rng, n=2, duration=0.1):
    values = np.clip(0.5 + 0.15 * rng.standard_normal((n, 1, *ff.FIELD)), 0, 1)
    return stimulus_array(values, frame_duration=duration, px_per_deg=16.0)


def pick(responses, role, time=-1):
    rate = responses["rate"].isel(time=time).transpose("trial", "unit")
    return rate.isel(unit=(responses.population == role).values).to_numpy()


def log_precision(model, prepared):
    """Return the log precision of every channel without what is inferred, from the docstring."""
    at = ff.layout()
    magnitude = prepared[400:425][at["place"]]
    distance = np.hypot(at["x"] - model.attention_x, at["y"] - model.attention_y)
    field = np.exp(-0.5 * (distance / model.attention_sigma) ** 2)
    if model.attention_orientation is not None:
        turn = 2 * (at["orientation"] - model.attention_orientation)
        field = field * np.exp(model.attention_concentration * (np.cos(turn) - 1))
    noise = np.log(model.precision) - np.log1p(model.fano * magnitude)
    return noise + np.log(model.attention_gain) * field


def test_a_place_has_a_drive_of_its_own(rng):
    model = circuit()
    prepared = model.prepare(picture(rng))[0, 0]
    even, odd = prepared[:400].reshape(25, 8, 2).transpose(2, 0, 1)
    np.testing.assert_allclose(prepared[400:425], np.hypot(even, odd).mean(axis=1), rtol=1e-12)
    assert prepared[425] == 0
    np.testing.assert_allclose(np.linalg.norm(ff.bank()[0], axis=1), 1.0)
    assert np.linalg.norm(ff.bank()[1], 2) == pytest.approx(1.0)


@pytest.mark.parametrize("feature", [None, np.pi / 4])
def test_it_rests_at_the_map_estimate_of_the_altered_precision(rng, feature):
    model = circuit(fano=0.7, attention_orientation=feature, **ATTENDED)
    stimulus = picture(rng)
    rest = settle(model, stimulus, tol=1e-9)
    for trial, prepared in enumerate(model.prepare(stimulus)[:, 0]):
        precision = np.exp(log_precision(model, prepared))
        level = Level(ff.bank()[1], precision=precision)
        prior = GaussianPrior(precision=model.prior_precision)
        best = map_exact(Hierarchy((level,), (prior,)), prepared[:400])
        np.testing.assert_allclose(pick(rest, "latent")[trial], best.states[1], atol=1e-6)
        weighted = precision * best.errors[0]
        np.testing.assert_allclose(pick(rest, "weighted_error")[trial], weighted, atol=1e-6)


@pytest.mark.parametrize("prior", [float("inf"), 16.0])
def test_both_engines_come_to_the_same(rng, prior):
    model = circuit(attention_prior=prior, record_dt=0.1, **ATTENDED)
    stimulus = picture(rng, n=1, duration=0.4)
    fine = replace(model, dt=0.0025)
    ours = simulate(fine, stimulus, record=["error", "latent"])
    theirs = run_brian(fine, stimulus, record=["error", "latent"])
    scale = np.abs(ours.rate.values).max()
    last = [responses.rate.values[0, -1] for responses in (ours, theirs)]
    np.testing.assert_allclose(last[1], last[0], atol=1e-3 * scale)


def test_inferred_attention_minimises_the_free_energy(rng):
    """Autograd of F over latents and log precisions vanishes where the circuit rests."""
    model = circuit(attention_prior=4.0, **ATTENDED)
    stimulus = picture(rng, n=1)
    rest = settle(model, stimulus, tol=1e-9)
    prepared = model.prepare(stimulus)[0, 0]
    names = np.repeat([p.name for p in model.populations], [p.size for p in model.populations])
    rate = rest.rate.values[0, 0]
    mu = torch.tensor(rate[names == "latent"], requires_grad=True)
    gamma = torch.tensor(rate[names == "attention"], requires_grad=True)
    place = torch.tensor(ff.layout()["place"])
    total = torch.tensor(log_precision(model, prepared)) + gamma[place]
    error = torch.tensor(prepared[:400]) - torch.tensor(ff.bank()[1]) @ mu
    energy = 0.5 * (total.exp() * error**2 - total).sum()
    energy = energy + 0.5 * model.prior_precision * (mu**2).sum() + 2.0 * (gamma**2).sum()
    energy.backward()
    assert float(gamma.detach().abs().max()) > 0.1
    assert float(mu.grad.abs().max()) < 1e-6
    assert float(gamma.grad.abs().max()) < 1e-6


def test_the_gain_builds_up_after_a_cue():
    light = gratings(ff.FIELD, spatial_frequency=2.85, duration=1.0, frame_duration=0.05)
    model = circuit(attention_gain=4.0, cue_onset=0.2, tau_modulator=0.4, record_dt=0.05)
    responses = model.run(light, record=["acetylcholine", "error", "latent"])
    time = responses.time.values
    modulator = responses.rate.values[0, :, (responses.level == 1).values & (
        responses.population == "precision").values][0]  # fmt: skip
    expected = np.where(time > 0.2, 1 - np.exp(-np.maximum(time - 0.2, 0) / 0.4), 0.0)
    np.testing.assert_allclose(modulator, expected, atol=1e-9)
    # Error units have no time constant: their gain is that of the moment.
    channels = model.prepare(light)[0, 0]
    plain = log_precision(replace(model, attention_gain=1.0), channels)
    for i in (1, 5, 19):
        error = channels[:400] - pick(responses, "latent", i)[0] @ ff.bank()[1].T
        gain = np.exp(plain + np.log(4.0) * expected[i])
        found = pick(responses, "weighted_error", i)[0]
        np.testing.assert_allclose(found, gain * error, rtol=1e-9, atol=1e-12)


def test_a_valid_cue_is_faster_than_an_invalid_one():
    """Posner: the latent of a target rises faster where precision was expected."""
    target = gratings(
        ff.FIELD, spatial_frequency=2.85, orientation=np.pi / 2, contrast=0.3, diameter=0.5,
        x=0.6, duration=0.4,
    )  # fmt: skip
    at = ff.layout()
    unit = np.flatnonzero(
        np.isclose(at["x"], 0.6) & np.isclose(at["y"], 0) & (at["phase"] == 0)
        & np.isclose(at["orientation"], np.pi / 2)
    )[0]  # fmt: skip
    rise = {}
    for name, x in (("valid", 0.6), ("invalid", -0.6)):
        cue = {"attention_gain": 4.0, "attention_x": x, "attention_sigma": 0.3}
        responses = circuit(record_dt=0.005, **cue).run(target, record=["latent"])
        rise[name] = responses.rate.values[0, :, unit]
    # Bounded accumulation: the time to a threshold that both reach.
    threshold = 0.5 * rise["invalid"][-1]
    crossing = {name: int(np.argmax(trace > threshold)) for name, trace in rise.items()}
    assert 0 < crossing["valid"] < crossing["invalid"]
    assert rise["valid"][-1] > rise["invalid"][-1]


def test_attention_to_an_orientation_spares_the_others():
    model = circuit(attention_gain=4.0, attention_orientation=np.pi / 4)
    field, at = model.attention, ff.layout()
    np.testing.assert_allclose(field[np.isclose(at["orientation"], np.pi / 4)], 1.0)
    np.testing.assert_allclose(field[np.isclose(at["orientation"], 3 * np.pi / 4)], np.exp(-4.0))


def test_fitting_gives_channels_unit_power(rng):
    model = catalog.load("circuits", "feldman_friston_2010").fit(picture(rng, n=50), seed=0)
    assert (model.prepare(picture(rng, n=50))[..., :400] ** 2).mean() == pytest.approx(1.0, rel=0.1)


def test_attend_raises_what_the_model_has():
    assert protocol.attend(circuit(), 2.0, sigma=0.4).attention_gain == 2.0
    ballard = catalog.load("circuits", "rao_ballard_1999")
    raised = protocol.attend(replace(ballard, precision=0.7), 1.5)
    assert raised.precision == pytest.approx(1.05)
    assert raised.dt == ballard.dt / 2
    column = protocol.attend(catalog.load("circuits", "cortical_column"), 2.0, x=0.1, sigma=0.3)
    own = next(p for p in column.populations if p.name == "error_V1")
    nearest = np.argmin(np.hypot(own.x - 0.1, own.y))
    distance = np.hypot(own.x - 0.1, own.y)[nearest]
    expected = 2.0 ** np.exp(-0.5 * (distance / 0.3) ** 2)
    assert column.attention[1][nearest] == pytest.approx(expected)
    plain = catalog.load("circuits", "linear_nonlinear")
    assert protocol.attend(plain, 2.0) is plain
    assert "no precision" in protocol.lacks_attention(plain)
    assert "no images" in protocol.lacks_attention(catalog.load("circuits", "bogacz_2017"))
    assert protocol.lacks_attention(circuit()) == ""


def test_controls_attend_by_contrast_or_by_a_shift(rng):
    stimulus = picture(rng, n=1)
    model = circuit(record_dt=0.1)
    control = protocol.AttentionControl(original=model, acts="contrast", record_dt=0.1)
    double = protocol.attend(control, 1.5).run(stimulus)
    louder = stimulus.copy(data=np.clip(0.5 + 1.5 * (stimulus.values - 0.5), 0, 1))
    np.testing.assert_allclose(double.rate.values, model.run(louder).rate.values, rtol=1e-12)
    shift = protocol.AttentionControl(original=model, acts="prior", record_dt=0.1)
    plain, moved = shift.run(stimulus), protocol.attend(shift, 1.5).run(stimulus)
    blank = stimulus.copy(data=np.full_like(stimulus.values, 0.5))
    # With the same noise a linear circuit adds a shift whatever it sees: compare with no noise.
    still = replace(shift, original=replace(model, fano=0.0))
    added = [protocol.attend(still, 1.5).run(s).rate.values - still.run(s).rate.values
             for s in (stimulus, blank)]  # fmt: skip
    np.testing.assert_allclose(added[0], added[1], atol=1e-9)
    assert np.abs(moved.rate.values - plain.rate.values).max() > 0.01


@pytest.mark.parametrize(
    ("r_max", "c50", "sign"), [(1.4, 0.2, 1), (1.0, 0.12, -1)]
)  # fmt: skip
def test_contrast_and_response_gain_are_told_apart(r_max, c50, sign):
    contrast = list(h34.CURVE)
    plain = naka_rushton(contrast, (1.0, 0.2, 1.7, 0.0))
    attended = naka_rushton(contrast, (r_max, c50, 1.7, 0.0))
    assert sign * protocol.gain_preference(contrast, plain, attended) > 5


def test_a_straight_line_has_no_preference():
    line = np.array(h34.CURVE)
    assert abs(protocol.gain_preference(h34.CURVE, line, 1.5 * line)) < 0.5


def test_tuning_reads_height_and_width():
    table = {("error", "steady"): np.stack([3.0 + np.cos(2 * h34.TURNS), 1.0 + 0 * h34.TURNS])}
    table[("error", "steady")][1] += 0.7 * np.cos(2 * h34.TURNS)
    height, width, _ = h34.tuning(table, (0.5,))[("error", "steady")]
    np.testing.assert_allclose(height[:, 0], [2.0, 1.4])
    np.testing.assert_allclose(width, np.pi / 4, rtol=1e-9)
