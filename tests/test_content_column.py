"""The laminar column: at rest the MAP estimate in both engines, learning, controls, labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import xarray as xr
from scipy.linalg import block_diag
from scipy.stats import spearmanr

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.circuit import Circuit, Population, Projection, settle
from pcsim.cli import main
from pcsim.cli_figure import population_sizes
from pcsim.inference import map_exact, map_gradient
from pcsim.kinds import Leaky
from pcsim.responses import open_responses, select
from pcsim.roster import SYNCHRONOUS, load_model, save_model
from pcsim.stimuli import natural_patches
from pcsim.stimulus import stimulus_array
from pcsim.synaptic import local_field_potential, pyramids

BASE = catalog.load("circuits", "cortical_column")
HYPOTHESIS = catalog.load("analysis", "latency_hierarchy")
PRECISION = (4.0, 0.7, 0.6, 0.8, 0.9)


@pytest.fixture(scope="module")
def patches():
    return natural_patches(BASE.field_shape, n=1200, seed=3)


@pytest.fixture(scope="module")
def trained(patches):
    return BASE.fit(patches, seed=3)


def images(rng, n=2):
    values = np.clip(0.5 + 0.1 * rng.standard_normal((n, 1, *BASE.field_shape)), 0, 1)
    return stimulus_array(values, frame_duration=0.02, px_per_deg=16.0)


def of(responses, name):
    return responses["rate"].isel(time=-1, unit=responses["name"].values == name).values


@pytest.mark.parametrize("lateral", ["full", "none", "random"])
def test_at_rest_it_is_the_map_estimate(rng, trained, lateral):
    attention = (1.0, rng.uniform(0.7, 1.5, 180))
    model = replace(trained, lateral=lateral, precision=PRECISION, attention=attention)
    # A precision of 4 makes the loop through the LGN too strong for its delays.
    model = replace(model, delay_forward=0.001, delay_backward=0.001)
    shown = images(rng)
    rest = settle(model, shown, tol=1e-9)
    exact = map_exact(model.hierarchy(), model.prepare(shown)[:, 0])
    for a, area in enumerate(model.areas, start=1):
        np.testing.assert_allclose(of(rest, f"latent_{area}"), exact.states[a], atol=1e-6)
    slow = map_gradient(model.hierarchy(), model.prepare(shown)[:, 0], tol=1e-9)
    np.testing.assert_allclose(of(rest, "latent_V2"), slow.states[2], atol=1e-6)


def test_map_estimate_solves_the_equations_of_the_docstring(rng, trained):
    """Written out anew: no code of the engine, covariances inverted here."""
    model = replace(trained, precision=PRECISION)
    x = model.prepare(images(rng, n=1))[0, 0]
    lower, middle, upper = (model._weights(a) for a in range(3))
    precisions = [np.linalg.inv(model.covariance(a)) for a in (1, 2, 3)]
    n1, n2, n3 = 180, 60, 24
    to_errors = np.block(
        [
            [np.eye(n1), -middle, np.zeros((n1, n3))],
            [np.zeros((n2, n1)), np.eye(n2), -upper],
            [np.zeros((n3, n1 + n2)), np.eye(n3)],
        ]
    )
    hessian = to_errors.T @ block_diag(*precisions) @ to_errors
    hessian[:n1, :n1] += 4.0 * lower.T @ lower
    drive = np.concatenate([4.0 * lower.T @ x, np.zeros(n2 + n3)])
    expected = np.linalg.solve(hessian, drive)
    states = map_exact(model.hierarchy(), x).states
    np.testing.assert_allclose(np.concatenate(states[1:]), expected, atol=1e-8)


def test_every_layer_at_rest_is_what_the_theory_says(rng, trained):
    rest = settle(trained, images(rng), tol=1e-9)
    mu, xi, s = (of(rest, f"{name}_V1") for name in ("latent", "error", "interneuron"))
    prediction = of(rest, "latent_V2") @ trained.weights[0].T
    np.testing.assert_allclose(of(rest, "prediction_V1"), prediction, atol=1e-6)
    covariance = trained.covariance(1)
    np.testing.assert_allclose(xi @ covariance, mu - prediction, atol=1e-6)
    np.testing.assert_allclose(s, xi @ covariance - 0.5 / 0.5 * xi, atol=1e-6)
    np.testing.assert_allclose(of(rest, "input_V1"), xi, atol=1e-6)


def test_brian_rests_at_the_same_state(rng, trained):
    model = replace(trained, n_areas=2, record_dt=0.01)
    shown = images(rng, n=1)
    exact = map_exact(model.hierarchy(), model.prepare(shown)[:, 0])
    frames = np.repeat(shown.values, 80, axis=1)
    held = stimulus_array(frames, frame_duration=0.01, px_per_deg=16.0)
    # Delays and 2 ms: at a step of 1 ms both engines stand within 1e-3 of rest after 0.8 s.
    rest = run_brian(model, held, dt=0.001)
    settled = settle(model, shown)
    for name, state in (("latent_V1", exact.states[1]), ("latent_V2", exact.states[2])):
        assert np.abs(state).max() > 0.1
        np.testing.assert_allclose(of(settled, name), state, atol=1e-6)
        np.testing.assert_allclose(of(rest, name), state, atol=1e-3)


def test_feedback_cut_leaves_the_estimate_of_an_area_by_itself(rng, trained):
    shown = images(rng)
    cut = settle(replace(trained, feedback_gain=0.0), shown, tol=1e-9)
    alone = replace(trained, n_areas=1)
    exact = map_exact(alone.hierarchy(), alone.prepare(shown)[:, 0])
    np.testing.assert_allclose(of(cut, "latent_V1"), exact.states[1], atol=1e-6)
    np.testing.assert_allclose(of(cut, "prediction_V1"), 0.0, atol=1e-12)
    assert np.abs(of(cut, "latent_V2")).max() > 0.01


def test_rest_does_not_depend_on_time_constants_and_delays(rng, trained):
    shown = images(rng)
    one, other = (settle(m, shown) for m in (trained, replace(trained, **SYNCHRONOUS)))
    np.testing.assert_allclose(one.rate.values, other.rate.values, atol=1e-6)


def test_signals_wait_for_their_delays(rng, trained):
    model = replace(trained, delay_forward=0.012)
    rate = model.run(images(rng).assign_coords(frame_duration=0.1))
    first = {
        area: rate.time.values[
            np.abs(select(rate, area=area, layer="L4")["rate"]).max(("trial", "unit")) > 0
        ][0]
        for area in model.areas
    }
    # L4 is 12 ms behind the error below it, which is 2 ms of relay in V1 behind its own L4.
    assert first["V1"] == pytest.approx(0.014, abs=1e-9)
    for below, above in (("V1", "V2"), ("V2", "V4")):
        assert first[above] - first[below] == pytest.approx(0.017, abs=0.0011)


def test_learning_explains_more_of_held_out_images(trained, patches):
    held_out = natural_patches(BASE.field_shape, n=200, seed=99)
    random = replace(
        trained, weights=BASE.untrained(seed=3).weights, correlations=(), lateral="none"
    )
    learned = replace(trained, lateral="none")
    energies = [
        float(map_exact(m.hierarchy(), m.prepare(held_out)[:, 0]).free_energy.mean())
        for m in (learned, random)
    ]
    # The best 60 and 24 dimensions would save 12 nats of 81; learning finds most of them.
    assert energies[0] < energies[1] - 6.0


def test_learning_is_error_times_rate(rng):
    """What learning moves along: minus the gradient of the sweep's squared error, rates held."""
    torch = pytest.importorskip("torch")
    model = replace(BASE.untrained(seed=2), precision=PRECISION, lateral="none", n_areas=2)
    x = rng.standard_normal((30, 221))
    below = torch.tensor(map_exact(model.hierarchy(), x).states[1])
    weights = torch.tensor(model.weights[0], requires_grad=True)
    sweep = below @ weights.detach()
    (0.5 * ((below - sweep @ weights.T) ** 2).sum()).backward()
    power = torch.linalg.matrix_norm(sweep, 2) ** 2
    expected = (weights - 0.3 * weights.grad / power).detach().numpy() * (model.weights[0] != 0)
    np.testing.assert_allclose(model._learned(x, 0.3)[0], expected, atol=1e-12)


def test_learned_predictions_span_what_varies_most(trained, patches):
    """Oja's rule seeks the leading subspace; nearly all variance that 24 units can hold."""
    x = trained.prepare(patches)[:, 0]
    below = map_exact(trained.hierarchy(), x).states[2]
    most = np.linalg.eigvalsh(below.T @ below)[-24:].sum()
    basis = np.linalg.qr(trained.weights[1])[0]
    assert np.sum((below @ basis) ** 2) > 0.9 * most


def test_lateral_inhibition_is_symmetric_positive_and_bounded(trained):
    for lateral in ("full", "random"):
        for a in (1, 2, 3):
            covariance = replace(trained, lateral=lateral).covariance(a)
            values = np.linalg.eigvalsh(0.5 * covariance)
            np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
            assert values[0] >= 0.49
            assert values[-1] <= 2.0 + 1e-9 or lateral == "random"
    full, random = (replace(trained, lateral=name).covariance(1) for name in ("full", "random"))
    assert np.abs(full - random).max() > 0.1


def test_layers_areas_and_places(rng):
    rate = BASE.run(images(rng, n=1))
    assert set(rate.layer.values[rate.area.values == "V2"]) == {"L4", "L2/3", "L5/6"}
    assert rate.level.values[rate.name.values == "latent_V4"].tolist() == [3] * 24
    assert rate.x.values[rate.name.values == "error_V1"].max() == pytest.approx(10 / 16)
    assert [len(replace(BASE, n_areas=n).populations) for n in (1, 2, 3, 4)] == [5, 10, 15, 20]
    assert pyramids(BASE)[:2] == ("error_V1", "latent_V1")
    lfp = local_field_potential(BASE, rate, site="layer")
    assert lfp.site.values[:2].tolist() == ["V1 L5/6", "V1 L2/3"]


def test_noise_moves_the_principal_cells_only(rng):
    grey = images(rng, n=1)
    grey = grey.copy(data=np.full(grey.shape, 0.5))
    rate = replace(BASE, noise=0.4).run(grey, seed=5)
    assert float(np.abs(select(rate, layer="L2/3", population="error")["rate"]).max()) > 0.01
    assert float(np.abs(BASE.run(grey, seed=5)["rate"]).max()) < 1e-12


def test_saved_models_come_back(trained, tmp_path):
    save_model(trained, tmp_path / "m", "cortical_column")
    again = load_model(tmp_path / "m")
    np.testing.assert_array_equal(again.weights[1], trained.weights[1])
    np.testing.assert_array_equal(again.covariance(2), trained.covariance(2))


def test_refusals():
    with pytest.raises(ValueError, match="at most 4"):
        _ = replace(BASE, n_areas=5).populations
    with pytest.raises(ValueError, match="Did you mean 'random'"):
        replace(BASE, lateral="rondom").covariance(1)
    with pytest.raises(ValueError, match="numbers above 0"):
        _ = replace(BASE, attention=(1.0, -0.5)).populations


@dataclass(frozen=True, kw_only=True)
class Chain(Circuit):
    """Three levels of estimates that settle by themselves, each with its own times."""

    tau_latent: float = 0.02
    tau_slow: float = 0.08
    delay_up: float = 0.01
    field_shape = (8, 8)
    px_per_deg = 16.0

    @property
    def populations(self):
        out = []
        for level in (1, 2, 3):
            taus = np.full(5, self.tau_latent) if level < 3 else np.full(5, self.tau_slow)
            unit = Leaky(tau=taus * np.linspace(0.9, 1.1, 5))
            out.append(Population(f"mu_{level}", unit, 5, level, "latent"))
        return tuple(out)

    @property
    def projections(self):
        weights = np.random.default_rng(1).standard_normal((5, 64))
        return tuple(
            Projection("stimulus", f"mu_{level}", weights, "drive", delay=level * self.delay_up)
            for level in (1, 2, 3)
        )


def test_latencies_of_a_chain_are_those_of_its_equations():
    evidence = HYPOTHESIS.observe(Chain(), seed=0, scale="quick")
    spread = np.linspace(0.9, 1.1, 5)
    taus = np.array([0.02, 0.02, 0.08])[:, None] * spread
    peak = 1.0 - np.exp(-(0.5 - 0.01 * np.arange(1, 4)[:, None]) / taus)
    exact = 0.01 * np.arange(1, 4)[:, None] - taus * np.log(1.0 - 0.5 * peak)
    np.testing.assert_allclose(evidence["latency"].values, exact.ravel(), atol=1e-4)
    level = np.repeat([1, 2, 3], 5)
    means = {name: float(evidence[name].mean()) for name in HYPOTHESIS.variables}
    rho = float(HYPOTHESIS.combine(means))
    assert rho == pytest.approx(spearmanr(level, exact.ravel()).statistic, abs=1e-9)


def test_synchronous_update_leaves_one_time_and_no_delay():
    (control,) = HYPOTHESIS.controls
    chain = control.transform(Chain(), 0)
    assert chain.delay_up == 0.0
    assert chain.tau_latent == chain.tau_slow == pytest.approx(0.04)
    evidence = HYPOTHESIS.observe(chain, seed=0, scale="quick")
    means = {name: float(evidence[name].mean()) for name in HYPOTHESIS.variables}
    assert abs(float(HYPOTHESIS.combine(means))) < 1e-9


def test_models_of_one_level_have_no_order():
    for name in ("linear_nonlinear", "retina_srinivasan_1982"):
        assert "one level" in HYPOTHESIS.missing(catalog.load("circuits", name))
    assert "no images" in HYPOTHESIS.missing(catalog.load("circuits", "bogacz_2017"))
    assert HYPOTHESIS.missing(BASE) == ""


def run_cli(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return ended.value.code


def test_simulate_leaves_rates_potentials_and_a_figure(tmp_path, capsys):
    given = ("simulate", "cortical_column", "--stimulus", "gratings", "--set", "noise=0.2")
    given += ("--set", "duration=0.05", "--set", "orientation=0,1.57", "--repeats", 3)
    out, drawn = tmp_path / "r.nc", tmp_path / "r.png"
    assert run_cli(*given, "-o", out, "--figure", drawn) == 0
    rates = open_responses(out)
    assert rates.lfp.site.values.tolist() == ["V1", "V2", "V4"]
    assert rates["repeat"].values.tolist() == [0, 0, 1, 1, 2, 2]
    one, again = rates.rate.values[0], rates.rate.values[2]
    assert np.abs(one - again).max() > 0.01
    assert drawn.stat().st_size > 20_000
    sizes = population_sizes(rates)
    mine = rates.rate.values[:, :, (rates.name == "latent_V2").values]
    mean = np.stack([mine[k::2].mean(0) for k in (0, 1)])
    np.testing.assert_allclose(
        sizes.values[sizes.population.values == "latent_V2"][0],
        np.sqrt((mean**2).mean(axis=(0, 2))),
        rtol=1e-12,
    )


def test_plots_of_layers_draw_what_they_are_given():
    from pcsim.plots import colour, publication_figure
    from pcsim.plots_laminar import plot_laminar_rates, plot_lfp

    time = np.array([0.1, 0.2, 0.3])
    named = {"population": ["a", "b"], "role": ("population", ["error", "latent"]), "time": time}
    rates = xr.DataArray(np.arange(6.0).reshape(2, 3), dims=("population", "time"), coords=named)
    lfp = xr.DataArray(
        [[0.0, 2.0], [-4.0, 1.0], [2.0, 0.0]], dims=("time", "site"),
        coords={"time": time, "site": ["V1", "V2"]},
    )  # fmt: skip
    with publication_figure() as figure:
        left, right = figure.subplots(1, 2)
        plot_laminar_rates(rates, ax=left)
        plot_lfp(lfp, ax=right, gap=2.0)
        assert [one.get_color() for one in left.lines] == [colour("error"), colour("latent")]
        np.testing.assert_allclose(left.lines[1].get_xydata()[1], [200.0, 4.0])
        np.testing.assert_allclose(right.lines[1].get_ydata(), [0.0, -0.5, 0.25])
        np.testing.assert_allclose(right.lines[3].get_ydata(), [-1.5, -1.75, -2.0])
        with pytest.raises(ValueError, match="Average over the trials"):
            plot_lfp(lfp.expand_dims("trial"), ax=right)
        with pytest.raises(ValueError, match="and role"):
            plot_laminar_rates(lfp, ax=right)


def test_simulate_draws_circuits_without_layers_by_level(tmp_path, capsys):
    given = ("simulate", "rao_ballard_1999", "--stimulus", "bars", "--set", "duration=0.05")
    drawn = tmp_path / "r.pdf"
    assert run_cli(*given, "-o", tmp_path / "r.nc", "--figure", drawn) == 0
    assert drawn.stat().st_size > 5000
    assert "lfp" not in open_responses(tmp_path / "r.nc")


def test_simulate_refuses_other_figures_and_no_repeats(tmp_path, capsys):
    given = ("simulate", "cortical_column", "--stimulus", "bars", "-o", tmp_path / "r.nc")
    assert run_cli(*given, "--figure", tmp_path / "r.gif") == 2
    assert "ending in .pdf, .png, .svg" in capsys.readouterr().err
    assert run_cli(*given, "--repeats", 0) == 2
    assert not (tmp_path / "r.nc").exists()
