"""H40 and H41 on rhythms whose law is known; the policy against differences and its own flow."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pcsim import catalog, roster
from pcsim.model import lesion
from pcsim.responses import make_responses, select
from pcsim.stimuli import BURST_PHASES, PERIODS, bursts, rhythms, tonic_period

phase = importlib.import_module("pcsim.analysis.constant_phase")
commands = importlib.import_module("pcsim.analysis.motor_commands")
policy = importlib.import_module("pcsim.circuits.autoregressive_policy")
CHAIN = catalog.load("circuits", "delay_chain")


@pytest.fixture(scope="module")
def trained():
    """Return one replica of the policy, taught in full."""
    return roster.train(roster.variant("ARF-policy"), seed=5)


def test_demonstrations_keep_the_phase_or_the_latency():
    for law, expected in (("phase", 1.0), ("latency", 0.0)):
        shown = rhythms(
            phase.TONIC, duration=60.0, frame_duration=0.04, law=law, noise=0.0, jitter=0.0, seed=3
        )
        rows = [phase.cycles(trial, 0.04) for trial in shown.values[..., 1:]]
        period, latency = np.array([r[1] for r in rows]), np.stack([r[2] for r in rows])
        np.testing.assert_allclose(period, tonic_period(phase.TONIC), rtol=0.02)
        for channel, own in enumerate(BURST_PHASES[1:]):
            elasticity, drift, r_squared = phase.slopes(period, latency[:, channel])
            assert elasticity == pytest.approx(expected, abs=0.05)
            wanted = own * (period if law == "phase" else PERIODS[1])
            # Half a frame, and what the smoothing takes from short bursts.
            np.testing.assert_allclose(latency[:, channel], wanted, atol=0.03)
            assert (drift < phase.TOLERANCE) == (law == "phase")
            assert law == "latency" or r_squared > 0.99


def test_jumps_move_the_cycle_and_nothing_else_does():
    shown = rhythms(
        [0.4], duration=9.0, frame_duration=0.05, noise=0.0, jitter=0.0, changes=[[4.0]], seed=2
    )
    period = tonic_period(0.4)
    values = shown.values[0, :, 1]
    # Fit the cycle of either half; within one they agree to rounding, across they differ.
    grid = np.linspace(0.0, 1.0, 2001)
    fitted = []
    for part in (slice(0, 80), slice(81, 180)):
        t = 0.05 * np.arange(180)[part]
        misfit = [np.abs(bursts(t / period + start) - values[part]).max() for start in grid]
        assert min(misfit) < 0.01
        fitted.append(grid[int(np.argmin(misfit))])
    assert 0.24 < (fitted[1] - fitted[0]) % 1.0 < 0.76


def test_rhythms_refuse_an_unknown_law(refused):
    words = refused(rhythms, [0.5], duration=1.0, frame_duration=0.04, law="phas")
    assert "Did you mean 'phase'" in words


def test_the_gradient_of_the_likelihood_is_that_of_differences(rng):
    model = policy.AutoregressivePolicy().untrained(seed=2)
    names = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
    weights = [getattr(model, name) + 0.1 * rng.standard_normal(getattr(model, name).shape)
               for name in names]  # fmt: skip
    seen, target = rng.standard_normal((7, 31)), rng.standard_normal((7, 6))

    def loss(arrays):
        one = replace(model, **dict(zip(names, arrays, strict=True)))
        mean, log_sigma = one.predict(seen[:, :30], seen[:, 30:])
        z = (target - mean) / np.exp(log_sigma)
        return (0.5 * z**2 + log_sigma).sum(axis=1).mean()

    for number, slope in enumerate(policy.gradient(weights, seen, target)):
        direction = rng.standard_normal(slope.shape)
        ends = []
        for sign in (1.0, -1.0):
            moved = [w.copy() for w in weights]
            moved[number] = moved[number] + sign * 1e-6 * direction
            ends.append(loss(moved))
        assert (slope * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_following_its_own_movement_takes_the_noise_it_was_made_with():
    # The flow is invertible: from a = mu + sigma z follows z = (a - mu) / sigma.
    model = policy.AutoregressivePolicy().untrained(seed=1)
    made = model.run(phase.tonic_input(model, [0.2, 0.9], 4.0), seed=3)
    a = select(made, population="output")["rate"].transpose("trial", "time", "unit")
    desired = phase.tonic_input(model, [0.2, 0.9], 4.0)
    desired.values[..., 1:] = a.values
    followed = lesion(model, follows=True).run(desired, seed=77)
    for population in ("output", "error"):
        np.testing.assert_allclose(
            select(followed, population=population)["rate"],
            select(made, population=population)["rate"],
            atol=1e-10,
        )


def test_without_a_history_commands_are_scaled_movements():
    model = policy.AutoregressivePolicy(n_taps=0).untrained(seed=1)
    evidence, shown = commands.observe(model, seed=0, scale="quick")
    a, z = (select(shown, population=p)["rate"].values[0, :, 2] for p in ("output", "error"))
    assert abs(np.corrcoef(a, z)[0, 1]) == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(evidence["kurtosis_command"], evidence["kurtosis_output"], atol=1e-9)


def test_the_taught_policy_predicts_what_it_is_shown(trained):
    shown = rhythms([0.1, 0.5, 0.8], duration=20.0, frame_duration=0.04, seed=900)
    z = select(lesion(trained, follows=True).run(shown, seed=0), population="error")
    late = z["rate"].isel(time=z["time"].values > 1.0).values
    # Demonstrations have Gaussian noise of 0.05: the best z is white with a power of 1.
    assert (late**2).mean() == pytest.approx(1.0, abs=0.15)
    assert abs(np.mean(late[:, 1:] * late[:, :-1])) < 0.1


def test_the_taught_policy_is_rhythmic_and_a_push_is_remembered(trained):
    evidence, _ = phase.observe(trained, seed=0, scale="quick")
    assert float(evidence["rhythm"].mean()) > np.log10(phase.RHYTHMIC)
    assert float(np.nanstd(evidence["phase_shift"])) > 0.05


def test_a_chain_keeps_its_latencies_and_forgets_a_push():
    evidence, _ = phase.observe(CHAIN, seed=0, scale="quick")
    np.testing.assert_allclose(evidence["elasticity"], 0.0, atol=0.05)
    expected = np.array(CHAIN.delays)[1:, None] / evidence["period"].to_numpy()
    np.testing.assert_allclose(evidence["phase"], expected, atol=0.03)
    np.testing.assert_allclose(evidence["phase_shift"], 0.0, atol=0.01)


@dataclass(frozen=True)
class OneLate:
    """Bursts of known phases, but for the last channel, which keeps its latency."""

    senses: str = "tonic"
    n_features: int = 2
    phases: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    latency: float = 0.15

    def run(self, stimulus, *, seed=0, record=None):
        period = tonic_period(stimulus["tonic"].values)[:, None]
        time = phase.FRAME * np.arange(1, stimulus.sizes["time"] + 1)
        delays = [one * period for one in self.phases] + [self.latency]
        turn = np.stack([(time - delay) / period for delay in delays], axis=-1)
        units = {"population": "output", "level": 0}
        return make_responses(np.cos(2 * np.pi * turn), time=time, units=units, trial=stimulus)


def test_one_phase_that_drifts_refutes_whatever_the_mean_does():
    evidence, _ = phase.observe(OneLate(), seed=0, scale="quick")
    drift = evidence["drift"].values
    # Eight phases are held; the last is latency / period, steeper the shorter the period.
    assert drift[:-1].max() < 0.01
    period = tonic_period(phase.TONIC)
    expected = np.polyfit(np.log(period), 0.15 / period, 1)[0]
    assert drift[-1] == pytest.approx(-expected, abs=0.01)
    assert drift.mean() < phase.TOLERANCE < drift[-1]
    np.testing.assert_array_equal(evidence["worst_drift"], drift.max())
    means = {name: evidence[name].mean() for name in phase.HYPOTHESIS.variables}
    assert phase.held(means) < 0.0
    np.testing.assert_allclose(evidence["r_squared"][:-1], 1.0, atol=0.01)


def test_noise_has_no_rhythm(rng):
    ratio, period, latency = phase.cycles(rng.standard_normal((1500, 6)), 0.04)
    assert ratio < phase.RHYTHMIC
    assert np.isnan(period)
    assert np.isnan(latency).all()
    assert phase.slopes(np.full(12, np.nan), np.full(12, np.nan)) == (0.0, 1.0, 0.0)


def test_concentration_and_kurtosis_of_known_signals(rng):
    after = np.zeros((40, 3000), dtype=bool)
    after[:, 1000:1100] = True
    loud = rng.standard_normal((40, 3000, 2)) * np.where(after, 3.0, 1.0)[..., None]
    # Power 9 against 1; 4000 values leave a standard error of 0.022.
    np.testing.assert_allclose(commands.concentration(loud, after), np.log(9.0), atol=0.1)
    normal, double = rng.standard_normal((40, 3000, 1)), rng.laplace(size=(40, 3000, 1))
    # Excess kurtosis 0 and 3, with standard errors of 0.014 and about 0.1.
    assert commands.excess(normal) == pytest.approx(0.0, abs=0.06)
    assert commands.excess(double) == pytest.approx(3.0, abs=0.4)
    assert (commands.excess(np.full((2, 50, 1), 0.7)) == 0.0).all()


def test_what_cannot_move_is_not_asked():
    bogacz = catalog.load("circuits", "bogacz_2017")
    assert "tonic input" in phase.missing(bogacz)
    assert "tonic input" in commands.missing(bogacz)
    assert commands.missing(CHAIN) == "nothing above it sends commands"


@pytest.mark.parametrize("model", [CHAIN, policy.MODEL])
def test_other_features_are_refused(model, refused):
    wrong = phase.tonic_input(model, [0.5], 1.0).isel(feature=slice(3))
    assert "7 features" in refused(model.run, wrong)


def test_panels_draw_every_column(trained):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    evidence = {
        label: [phase.observe(model, seed=0, scale="quick")[0]]
        for label, model in (("ARF-policy", trained), ("CHAIN", CHAIN))
    }
    phase.panel(evidence, ax)
    assert len(ax.lines) == 2 * (len(BURST_PHASES) - 1)
    np.testing.assert_allclose(
        np.sort(ax.lines[-1].get_xdata()), np.sort(evidence["CHAIN"][0]["period"]), atol=1e-12
    )
    ax = Figure().add_subplot()
    commands.panel({"ARF-policy": [commands.observe(trained, seed=0, scale="quick")[0]]}, ax)
    assert len(ax.lines) == 2 + len(commands.CHANGES)
