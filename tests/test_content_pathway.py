"""The visual pathway against closed form, autograd, its own law of descent and Brian 2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pcsim import catalog
from pcsim.brian import run_brian
from pcsim.circuit import settle
from pcsim.protocols import blank
from pcsim.responses import select
from pcsim.stimuli import natural_patches
from pcsim.stimulus import stimulus_array

BASE = catalog.load("circuits", "visual_pathway")
SETTINGS = {"precision": 0.7, "top_precision": 0.4, "alpha": 0.6, "top_alpha": 0.3}


def random_circuit(rng, **settings):
    model = replace(BASE, **{**SETTINGS, **settings})
    inside = BASE.weights != 0
    return replace(
        model,
        weights=0.2 * rng.standard_normal(inside.shape) * inside,
        top_weights=0.15 * rng.standard_normal(model.top_weights.shape),
        mean=0.1 * rng.standard_normal(256),
    )


def random_images(rng, n=3, duration=0.1):
    images = np.clip(0.5 + 0.1 * rng.standard_normal((n, 1, 16, 16)), 0, 1)
    return stimulus_array(images, frame_duration=duration, px_per_deg=16.0)


def rates(responses, **labels):
    return select(responses, **labels)["rate"].transpose("trial", "time", "unit").to_numpy()


def lgn_input(model, stimulus):
    """What the LGN gets from a constant image, from the formulas of the docstring."""
    x = np.log((stimulus.to_numpy().reshape(stimulus.sizes["trial"], -1) + 0.01) / 0.51)
    noise = np.trace(model.covariance) / 256 / model.snr
    noisy = model.covariance + noise * np.eye(256)
    variance, axes = np.linalg.eigh(noisy)
    kernel = (axes / np.sqrt(variance)) @ axes.T @ model.covariance @ np.linalg.inv(noisy)
    kernel /= np.sqrt(np.trace(kernel @ model.covariance @ kernel.T) / 256)
    share = 1.0 - model.tau_trace / model.correlation_time
    return (1.0 - share) * (x - model.mean) @ kernel.T


def energy(torch, model, y, weights, top_weights, r, top):
    """The energy of the module's docstring, summed over trials."""
    below, above = y - r @ weights.T, r - top @ top_weights.T
    prior = (lambda z: torch.log1p(z**2)) if model.sparse else (lambda z: z**2)
    out = 0.5 * model.precision * (below**2).sum() + 0.5 * model.top_precision * (above**2).sum()
    return out + 0.5 * (model.alpha * prior(r).sum() + model.top_alpha * prior(top).sum())


@pytest.mark.parametrize("sparse", [True, False])
def test_estimates_lie_where_the_energy_is_flat(rng, sparse):
    torch = pytest.importorskip("torch")
    model = random_circuit(rng, sparse=sparse)
    y = rng.standard_normal((4, 256))
    r, top = model.estimate(y, n_steps=4000)
    fixed = [torch.tensor(one) for one in (y, model.weights, model.top_weights)]
    leaves = [torch.tensor(one, requires_grad=True) for one in (r, top)]
    energy(torch, model, *fixed, *leaves).backward()
    assert max(float(leaf.grad.abs().max()) for leaf in leaves) < 1e-9


@pytest.mark.parametrize("settings", [{}, {"sparse": False}, {"feedback_gain": 0.8}])
def test_a_constant_image_rests_at_the_minimum_of_the_free_energy(rng, settings):
    model, stimulus = random_circuit(rng, **settings), random_images(rng)
    rest, y = settle(model, stimulus, tol=1e-10), lgn_input(model, stimulus)
    r, top = model.estimate(y, n_steps=20_000)
    gain = model.feedback_gain
    assert np.abs(r).max() > 0.02
    np.testing.assert_allclose(rates(rest, area="V1", population="latent")[:, 0], r, atol=1e-8)
    np.testing.assert_allclose(rates(rest, area="V2")[:, 0], top, atol=1e-8)
    on, off = (rates(rest, area="LGN", population=f"error_{s}")[:, 0] for s in ("pos", "neg"))
    expected = model.precision * (y - gain * r @ model.weights.T)
    np.testing.assert_allclose(on - off, expected, atol=1e-8)
    assert (on >= 0).all()
    assert (off >= 0).all()
    assert (on * off == 0).all()
    error = rates(rest, area="V1", population="error")[:, 0]
    np.testing.assert_allclose(error, r - gain * top @ model.top_weights.T, atol=1e-8)


def test_the_linear_circuit_rests_at_the_posterior_mean(rng):
    model, stimulus = random_circuit(rng, sparse=False), random_images(rng)
    pi, top_pi, lower, upper = 0.7, 0.4, model.weights, model.top_weights
    hessian = np.block(
        [
            [pi * lower.T @ lower + (top_pi + 0.6) * np.eye(144), -top_pi * upper],
            [-top_pi * upper.T, top_pi * upper.T @ upper + 0.3 * np.eye(48)],
        ]
    )
    drive = np.zeros((3, 192))
    drive[:, :144] = pi * lgn_input(model, stimulus) @ lower
    expected = np.linalg.solve(hessian, drive.T).T
    rest = settle(model, stimulus, tol=1e-10, record=["latent_1", "latent_2"])
    np.testing.assert_allclose(rates(rest)[:, 0], expected, atol=1e-8)


def test_brian_comes_to_the_same_rest(rng):
    model, stimulus = random_circuit(rng), random_images(rng, n=1, duration=2.4)
    r, top = model.estimate(lgn_input(model, stimulus), n_steps=20_000)
    record = ["latent_1", "latent_2", "lgn_on", "lgn_off"]
    found = run_brian(replace(model, record_dt=2.4), stimulus, dt=0.002, record=record)
    np.testing.assert_allclose(rates(found, area="V1")[:, 0], r, atol=1e-3 * np.abs(r).max())
    np.testing.assert_allclose(rates(found, area="V2")[:, 0], top, atol=1e-3 * np.abs(top).max())
    on, off = (rates(found, population=f"error_{sign}")[:, 0] for sign in ("pos", "neg"))
    residual = model.precision * (lgn_input(model, stimulus) - r @ model.weights.T)
    np.testing.assert_allclose(on - off, residual, atol=1e-3 * np.abs(residual).max())


def test_the_retina_gives_natural_input_unit_variance_and_splits_it(rng):
    model = replace(BASE, snr=4.0)
    factor = np.linalg.cholesky(model.covariance)
    x = rng.standard_normal((4000, 256)) @ factor.T
    # 4000 samples of 256 correlated units: a standard error of about 0.5 %.
    assert model.ganglion(x).var() == pytest.approx(1.0, rel=0.03)
    rest = settle(model, random_images(rng), record=["ganglion", "ganglion_on", "ganglion_off"])
    signed, on, off = (rates(rest, population=f"output{s}") for s in ("", "_pos", "_neg"))
    np.testing.assert_allclose(on, np.maximum(signed, 0))
    np.testing.assert_allclose(off, np.maximum(-signed, 0))


def test_the_lgn_whitens_what_stays_alike_for_the_correlation_time(rng):
    # White noise through the leak 1/T is an Ornstein-Uhlenbeck process; the relay undoes the leak
    # between its corners, (1 - c) / tau_trace = 1 / T and 1 / tau_trace.
    share, tau = replace(BASE, correlation_time=0.4, tau_trace=0.004).trace
    omega = 2 * np.pi * np.geomspace(0.05, 8.0, 20)
    source = 1.0 / (1.0 + (omega * 0.4) ** 2)
    relay = np.abs(1.0 - share / (1.0 + 1j * omega * tau)) ** 2
    power = source * relay
    np.testing.assert_allclose(power / power.mean(), 1.0, atol=0.05)


def test_learning_follows_the_gradient_of_the_energy(rng):
    torch = pytest.importorskip("torch")
    model = random_circuit(rng, weight_decay=0.3)
    y = 0.5 * rng.standard_normal((5, 256))
    r, top = model.estimate(y)
    moved = model._learn(y, rate=1e-3)
    leaves = [torch.tensor(one, requires_grad=True) for one in (model.weights, model.top_weights)]
    fixed = [torch.tensor(one) for one in (y, r, top)]
    (energy(torch, model, fixed[0], *leaves, *fixed[1:]) / 5).backward()
    for name, activity, precision, leaf in (
        ("weights", r, 0.7, leaves[0]),
        ("top_weights", top, 0.4, leaves[1]),
    ):
        power = max(1.0, precision * np.linalg.norm(activity, 2) ** 2 / 5)
        before = getattr(model, name)
        expected = -1e-3 / power * (leaf.grad.numpy() + 0.3 * before) * (before != 0)
        np.testing.assert_allclose(getattr(moved, name) - before, expected, atol=1e-12)


def test_training_explains_held_out_images_better():
    images = natural_patches((16, 16), n=1500, seed=3)
    trained = BASE.fit(images.isel(trial=slice(0, 1200)), seed=3)
    assert (trained.weights[BASE.weights == 0] == 0).all()
    y = trained.ganglion(trained.prepare(images.isel(trial=slice(1200, None)))[:, 0])

    def left(model):
        return ((y - model.estimate(y, 200)[0] @ model.weights.T) ** 2).mean()

    assert left(trained) < 0.7 * left(BASE.untrained(seed=3))
    again, other = (BASE.fit(images.isel(trial=slice(0, 100)), seed=s) for s in (3, 4))
    assert not np.allclose(again.weights, other.weights)


def test_without_feedback_the_lgn_passes_its_input_and_v2_is_silent(rng):
    model = replace(random_circuit(rng, feedback_gain=0.0), record_dt=3.0)
    stimulus = random_images(rng, duration=3.0)
    found, y = model.run(stimulus), lgn_input(model, stimulus)
    residual = rates(found, area="LGN", population="error")[:, 0]
    np.testing.assert_allclose(residual, 0.7 * y, atol=1e-9)
    assert (rates(found, area="V2") == 0).all()


def test_signals_arrive_after_the_delays_of_the_axons(rng):
    model = random_circuit(rng, delay_lgn=0.006, delay_v1=0.008, delay_v2=0.012)
    found = model.run(random_images(rng))
    first = {}
    for area, role in (("retina", "output"), ("LGN", "error"), ("V1", "latent"), ("V2", "latent")):
        moved = np.abs(rates(found, area=area, population=role)).max(axis=(0, 2)) > 0
        first[area] = found.time.values[np.argmax(moved)]
    steps = np.diff(list(first.values()))
    np.testing.assert_allclose(steps, [0.008, 0.010, 0.014], atol=1e-9)


def test_switches_are_controls():
    pooling, lateral = BASE.retina()
    same, shuffled = replace(BASE, spatial="random").retina()
    np.testing.assert_array_equal(same, pooling)
    np.testing.assert_allclose(np.sort(shuffled, axis=1), np.sort(lateral, axis=1))
    assert np.abs(shuffled - lateral).max() > 0.01
    assert (replace(BASE, spatial="none").retina()[1] == 0).all()
    assert replace(BASE, temporal="none").trace[0] == 0.0
    assert replace(BASE, temporal="adaptation").trace == (0.8, 1.4)
    with pytest.raises(ValueError, match=r"found temporal 'fast', expected one of .*Give one"):
        replace(BASE, temporal="fast")


def test_grey_leaves_it_silent():
    assert float(np.abs(BASE.run(blank(BASE))["rate"]).max()) < 1e-12
