"""H31: a pair of errors and estimates whose rhythms theory gives, and the protocol around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pcsim.analysis import rhythm_asymmetry as content
from pcsim.circuit import Circuit, Population, Projection
from pcsim.circuits.linear_nonlinear import MODEL as LN
from pcsim.circuits.rao_ballard_1999 import MODEL as RAO_BALLARD
from pcsim.experiment import run_experiment
from pcsim.experiments import rhythm as experiment
from pcsim.hypothesis import observation
from pcsim.kinds import Error, Latent
from pcsim.measures import (
    Autoregression,
    Tapers,
    multitaper_spectrum,
    pair_granger,
    spectral_granger,
    spectral_slope,
)
from pcsim.plots import publication_figure
from pcsim.priors import Flat, GaussianPrior
from pcsim.protocols import (
    error_estimate_pairs,
    noisy_movies,
    pair_influence,
    pair_potentials,
    pair_responses,
)
from pcsim.stimulus import stimulus_array

HYPOTHESIS = content.HYPOTHESIS
FIELD = (6, 8)


@dataclass(frozen=True, kw_only=True)
class Pair(Circuit):
    """Errors of a few pixels, and estimates that predict them after a delay."""

    tau_error: float = 0.004
    tau_latent: float = 0.03
    delay_forward: float = 0.006
    delay_backward: float = 0.006
    precision: float = 0.7
    prior: float = 0.5
    noise: float = 0.0
    n: int = 8
    feedback_gain: float = 1.0

    @property
    def field_shape(self) -> tuple[int, int]:
        return FIELD

    @property
    def px_per_deg(self) -> float:
        return 16.0

    @property
    def populations(self) -> tuple[Population, ...]:
        prior: Any = GaussianPrior(precision=self.prior) if self.prior else Flat()
        error = Error(tau=self.tau_error, variance=1 / self.precision)
        latent = Latent(tau=self.tau_latent, prior=prior)
        return (
            Population("error", error, self.n, 0, "error", "LGN", noise=self.noise),
            Population("latent", latent, self.n, 1, "latent", "V1", noise=self.noise),
        )

    @property
    def projections(self) -> tuple[Projection, ...]:
        sees = np.eye(self.n, FIELD[0] * FIELD[1], 11)
        down = self.feedback_gain * np.eye(self.n)
        return (
            Projection("stimulus", "error", sees, "observed"),
            Projection("latent", "error", down, "predicted", delay=self.delay_backward),
            Projection("error", "latent", np.eye(self.n), "ascending", delay=self.delay_forward),
        )

    def prepare(self, stimulus: xr.DataArray) -> Any:
        return 8.0 * (Circuit.prepare(self, stimulus) - 0.5)


def grey(n_trials, duration):
    """Return grey trials of one frame."""
    return stimulus_array(
        np.full((n_trials, 1, *FIELD), 0.5), frame_duration=duration, px_per_deg=16.0
    )


def rates_of(circuit, stimulus, onset=0.4, **options):
    """Return the rates (trial, time, site) of the two units of a circuit, after the onset."""
    rate = circuit.run(stimulus, **options)["rate"]
    rate = rate.isel(time=rate["time"].values > onset)
    return rate.drop_vars([c for c in rate.coords if c not in ("time", "trial")]).rename(
        unit="site"
    )


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_causality_of_a_noisy_pair_is_that_of_its_equations(gain):
    """Without delays Euler's steps are an autoregression of order 1, whose causality is exact."""
    circuit = Pair(
        n=1, delay_forward=0.0, delay_backward=0.0, noise=0.5, dt=0.004, integrator="euler",
        feedback_gain=gain,
        tau_error=0.02, tau_latent=0.05,
    )  # fmt: skip
    rates = rates_of(circuit, grey(60, 4.4), seed=3)
    drift = np.array(
        [[-1 / 0.7 / 0.02, -gain / 0.02], [1 / 0.05, -0.5 / 0.05]]
    )  # rows: error, estimate
    spread = 0.5**2 * 2 * 0.004 / np.array([0.02, 0.05])
    exact = Autoregression(
        coefficients=(np.eye(2) + 0.004 * drift)[None], covariance=np.diag(spread), rate=250.0
    )
    found = spectral_granger(rates, Tapers(half_bandwidth=2.0)).sel(frequency=slice(4.0, 120.0))
    frequency = found["frequency"].values
    expected = pair_granger(exact.transfer(frequency), exact.covariance)
    # 60 trials of 15 tapers: G is good to a few times 2 sqrt(G / 900).
    for way, (a, b) in enumerate(((0, 1), (1, 0))):
        error = np.abs(found.values[a, b] - expected[:, way])
        assert error.max() < 0.02 + 5.0 * np.sqrt(expected[:, way].max() / 900)
    assert (expected[:, 1].max() > 0.05) == (gain == 1.0)


def test_estimates_that_only_integrate_errors_fall_by_frequency_squared(rng):
    circuit = Pair(prior=0.0, delay_forward=0.0, delay_backward=0.0, dt=0.0005, record_dt=0.002)
    light = stimulus_array(
        np.clip(0.5 + 0.1 * rng.standard_normal((12, 600, *FIELD)), 0, 1), frame_duration=0.004,
        px_per_deg=16.0,
    )  # fmt: skip
    (responses,) = pair_responses([circuit], light, levels=[0], onset=0.4, noise=0.0)
    power = content.pair_power(responses, 0)
    ratio = power.sel(site="estimate", drop=True) / power.sel(site="error", drop=True)
    # 1 / (2 pi f tau)^2, but that sampling at 500 Hz folds back power of the errors above 250 Hz.
    assert spectral_slope(ratio, band=(14.0, 80.0)).slope.item() == pytest.approx(-2.0, abs=0.12)
    at = ratio.sel(frequency=30.0, method="nearest")
    omega = 2 * np.pi * float(at.frequency)
    assert at.item() == pytest.approx(1 / (omega * 0.03) ** 2, rel=0.1)


def test_pairs_are_found_by_role_and_level():
    assert error_estimate_pairs(Pair()) == {0: ("LGN", "V1")}
    assert error_estimate_pairs(RAO_BALLARD) == {0: ("LGN", "V1"), 1: ("V1", "V2")}
    assert HYPOTHESIS.missing(Pair()) == ""
    assert "no errors with estimates" in HYPOTHESIS.missing(LN)
    with pytest.raises(ValueError, match="no errors of level 1"):
        pair_potentials(Pair().run(grey(1, 0.05)), 1)


def test_replicas_answer_as_each_does_alone():
    circuits = [Pair(tau_error=tau) for tau in (0.004, 0.01)]
    movies = noisy_movies(circuits[0], n=2, duration=0.7, seed=1)
    together = pair_responses(circuits, movies, levels=[0], noise=0.0)
    for circuit, one in zip(circuits, together, strict=True):
        (alone,) = pair_responses([circuit], movies, levels=[0], noise=0.0)
        np.testing.assert_allclose(one["rate"], alone["rate"], rtol=1e-12, atol=1e-12)


def test_movies_are_natural_plus_white_noise():
    plain, noisy = (noisy_movies(Pair(), n=3, duration=0.8, noise=n, seed=4) for n in (0.0, 0.05))
    added = (noisy - plain).to_numpy()
    inside = (noisy.to_numpy() > 0.0) & (noisy.to_numpy() < 1.0)
    assert added[inside].std() == pytest.approx(0.05, rel=0.03)
    assert np.abs(np.corrcoef(added[:, 1:].ravel(), added[:, :-1].ravel())[0, 1]) < 0.02
    assert float(noisy.min()) >= 0.0


@pytest.fixture(scope="module")
def evidence():
    return observation(HYPOTHESIS, Pair(), seed=2, scale="quick")[0]


def test_evidence_of_a_pair(evidence):
    assert evidence.sizes["unit"] == 1
    assert evidence["pair"].item() == "LGN to V1"
    assert evidence["cells"].shape == (3, 3)
    judged = evidence["judged"].values
    share = (evidence["cells"].values[judged] <= 0).mean() if judged.any() else 2.5 / 9
    assert evidence["failing"].item() == pytest.approx(9 * share)
    assert np.abs(evidence["surrogate"].item()) < 0.25
    gamma, beta = evidence["gamma"].item(), evidence["beta"].item()
    assert evidence["asymmetry"].item() == pytest.approx(gamma - beta)
    assert (np.diff(evidence["granger"].frequency) > 0).all()


def test_controls_take_away_the_time_constants_and_the_coupling(evidence):
    slow = content.equalised(Pair(), 0)
    assert slow.model.tau_error == slow.model.tau_latent == 0.03
    assert content.time_constants(slow) == {}
    assert "no time constant to equalise" in HYPOTHESIS.missing(content.equalised(RAO_BALLARD, 0))
    shuffled = content.randomised(Pair(), 5)
    movies = noisy_movies(Pair(), n=8, duration=4 / 3, seed=3)
    real, made = (
        pair_responses([model], movies, levels=[0], onset=0.0, noise=0.0)[0]
        for model in (Pair(), shuffled)
    )
    for one in (0, 9):
        np.testing.assert_allclose(
            *(np.abs(np.fft.rfft(r["rate"].values[1, :, one])) for r in (real, made)), atol=1e-8
        )
    both = [
        np.mean([np.corrcoef(trial.T)[0, 8] for trial in r["rate"].values]) for r in (real, made)
    ]
    assert abs(both[0]) > 0.3 + abs(both[1])


def test_time_constants_swept_are_the_circuits_own():
    assert content.time_constants(Pair()) == {"tau_error": 0.004, "tau_latent": 0.03}
    top = next(p.kind.tau for p in RAO_BALLARD.populations if p.name == "latent_2")
    assert content.time_constants(RAO_BALLARD) == {"tau": RAO_BALLARD.tau, "tau_top": top}
    assert content.time_constants(replace(RAO_BALLARD, tau_top=0.4))["tau_top"] == 0.4


def test_a_silent_pair_is_not_included():
    (responses,) = pair_responses([Pair()], grey(20, 1.9), levels=[0], noise=0.0)
    row = content.measured(responses, 0, 0)
    assert not row["included"].item()
    found = pair_influence(pair_potentials(responses, 0))
    assert found["steady"].item()
    assert not found["detected"].item()
    assert np.isnan(found["index"]).all()


def test_independent_signals_are_rarely_detected_and_coupled_ones_are(rng):
    detected = []
    for _ in range(25):
        made = xr.DataArray(
            rng.normal(size=(6, 668, 2)), dims=("trial", "time", "site"),
            coords={"time": np.arange(668) / 500, "site": ["error", "estimate"]},
        )  # fmt: skip
        detected.append(pair_influence(made)["detected"].item())
    assert sum(detected) <= 3
    coupled = made.copy()
    coupled[:, 3:, 1] += 0.5 * made[:, :-3, 0].values
    found = pair_influence(coupled)
    assert found["detected"].item()
    assert (found["index"].sel(band=["gamma", "beta"]) > 0.5).all()


def test_a_cell_that_diverges_counts_as_failing():
    wild = Pair(tau_latent=0.03, feedback_gain=300.0, dt=0.002)
    movies = noisy_movies(wild, n=5, duration=1.2, seed=3)
    shown = {"levels": [0], "onset": 0.2, "noise": 0.0, "seed": 0}
    cells, judged = content.swept(wild, movies, shown)
    assert np.isnan(cells).all()
    assert judged.all()


def test_verdict_needs_seven_cells_and_more_than_surrogates():
    means = {"asymmetry": np.array([0.4]), "surrogate": np.array([0.1]), "failing": np.array([3.0])}
    found = {r.name: r.combine(means).item() for r in HYPOTHESIS.requirements}
    assert found == pytest.approx({"sweep": -0.5, "surrogates": 0.3})


def test_panel_draws_both_directions(evidence):
    evidence = evidence.assign(included=("unit", [True]))
    with publication_figure(85.0, 60.0) as figure:
        ax = figure.add_subplot()
        HYPOTHESIS.panel({"COLUMN": [evidence, evidence], "COLUMN/equal": [evidence]}, ax)
        HYPOTHESIS.panel({}, figure.add_subplot())
    lines = ax.get_lines()
    assert len(lines) == 4
    curve = evidence["granger"].isel(unit=0).sel(direction="forward")
    np.testing.assert_allclose(lines[0].get_ydata(), curve)
    assert "Granger" in ax.get_ylabel()


def test_power_of_the_pair_is_the_multitaper_mean():
    movies = noisy_movies(Pair(), n=3, duration=1.2, seed=3)
    (responses,) = pair_responses([Pair()], movies, levels=[0], noise=0.0)
    power = content.pair_power(responses, 0)
    direct = multitaper_spectrum(responses["rate"].isel(unit=slice(8)), content.RHYTHM_TAPERS)
    direct = direct.mean("unit").sel(frequency=slice(1.0, 120.0))
    np.testing.assert_allclose(power.sel(site="error"), direct, rtol=1e-12)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the experiment on the small pair, two ratios and two delays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "RATIOS", (1.0, 14.0))
        patch.setattr(experiment, "DELAYS", (0.0, 8.0))
        patch.setattr(experiment, "train", lambda *_, **__: None)
        patch.setattr(experiment, "save_model", lambda *_: None)
        patch.setattr(experiment, "load_model", lambda _: Pair())
        settings = {"n_trials": 6, "duration": 4 / 3}
        yield run_experiment(
            experiment.EXPERIMENT, seeds=2, settings=settings, workers=0,
            out=tmp_path_factory.mktemp("rhythm"),
        )  # fmt: skip


def test_the_map_holds_every_cell_beside_chance(run):
    rows = [line.split(",") for line in (run.folder / "table.csv").read_text().splitlines()]
    assert [row[:2] for row in rows[1:]] == [["1", "0"], ["1", "8"], ["14", "0"], ["14", "8"]]
    with xr.open_dataset(run.folder / "rhythm.nc", engine="h5netcdf") as result:
        cells = experiment.asymmetry(result)
        assert cells.sizes == {"replica": 2, "delay": 2, "ratio": 2}
        level = experiment.chance(result)
        bands = result["index"]
        np.testing.assert_allclose(
            bands.sel(band="difference"), bands.sel(band="gamma") - bands.sel(band="beta")
        )
        assert result["surrogate"].sizes["draw"] == experiment.N_SURROGATES
        pooled = result["surrogate"].where(result["detected"].astype(bool)).mean("pair")
        pooled = pooled.mean("replica").to_numpy()
        if np.isfinite(pooled).any():
            assert level == pytest.approx(np.nanquantile(pooled, 0.95))
        for row in rows[1:]:
            cell = cells.sel(ratio=float(row[0]), delay=float(row[1]))
            heard = bool(cell.notnull().any())
            assert row[5] == str(int(cell.notnull().sum()))
            if heard:
                assert float(row[2]) == pytest.approx(cell.mean().item(), rel=1e-5)
            assert row[7] == str(int(heard and cell.mean().item() > level))
    assert (run.folder / "figure.png").stat().st_size > 10_000


def test_a_circuit_that_diverges_leaves_its_cell_empty():
    lost = experiment.measured(None, 0, 0)
    assert not lost["steady"].item()
