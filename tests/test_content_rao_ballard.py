"""The Rao & Ballard circuit against autograd, closed form and its own law of descent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pcsim import catalog
from pcsim.protocols import blank
from pcsim.roster import training_stimulus
from pcsim.stimulus import stimulus_array

BASE = catalog.load("circuits", "rao_ballard_1999")
SETTINGS = {"precision": 0.7, "top_precision": 0.4, "alpha": 0.6, "top_alpha": 0.3}


def random_circuit(rng, **settings):
    model = replace(BASE, **{**SETTINGS, **settings})
    return replace(
        model,
        weights=0.15 * rng.standard_normal(model.weights.shape),
        top_weights=0.1 * rng.standard_normal(model.top_weights.shape),
    )


def random_images(rng, n=3):
    images = 0.5 + 0.1 * rng.standard_normal((n, 1, *BASE.field_shape))
    return stimulus_array(np.clip(images, 0, 1), frame_duration=4.0, px_per_deg=16.0)


def energy(torch, model, patches, weights, top_weights, r, top):
    """The energy of the module's docstring, summed over trials."""
    flat = r.reshape(len(r), -1)
    below = patches - torch.einsum("mpk,bmk->bmp", weights, r)
    above = flat - model.feedback_gain * top @ top_weights.T
    out = 0.5 * model.precision * (below**2).sum() + 0.5 * model.top_precision * (above**2).sum()
    prior = (lambda z: torch.log1p(z**2)) if model.sparse else (lambda z: z**2)
    return out + 0.5 * (model.alpha * prior(r).sum() + model.top_alpha * prior(top).sum())


@pytest.mark.parametrize("sparse", [True, False])
def test_latents_come_to_rest_where_the_energy_is_flat(rng, sparse):
    torch = pytest.importorskip("torch")
    model = random_circuit(rng, sparse=sparse, feedback_gain=0.8)
    stimulus = random_images(rng)
    patches = model.prepare(stimulus).reshape(-1, 3, 256)
    r, top = model.settle_patches(patches, n_steps=4000)
    tensors = [torch.tensor(a) for a in (patches, model.weights, model.top_weights)]
    leaves = [torch.tensor(a, requires_grad=True) for a in (r, top)]
    energy(torch, model, *tensors, *leaves).backward()
    assert max(float(leaf.grad.abs().max()) for leaf in leaves) < 1e-9


def test_circuit_and_batch_descent_rest_at_the_same_state(rng):
    model = random_circuit(rng, record_dt=4.0)
    stimulus = random_images(rng)
    r, top = model.settle_patches(model.prepare(stimulus).reshape(-1, 3, 256), n_steps=4000)
    rate = model.run(stimulus).isel(time=-1)
    latents = rate.isel(unit=(rate.population == "latent").values)
    level_1 = latents.isel(unit=(latents.level == 1).values)["rate"].transpose("trial", "unit")
    level_2 = latents.isel(unit=(latents.level == 2).values)["rate"].transpose("trial", "unit")
    np.testing.assert_allclose(level_1, r.reshape(len(r), -1), atol=1e-6)
    np.testing.assert_allclose(level_2, top, atol=1e-6)


def test_linear_circuit_rests_at_the_posterior_mean(rng):
    model = random_circuit(rng, sparse=False)
    patches = rng.standard_normal((4, 3, 256))
    r, top = model.settle_patches(patches, n_steps=20_000)
    upper = model.top_weights
    blocks = np.zeros((768, 96))
    for m in range(3):
        blocks[m * 256 : (m + 1) * 256, m * 32 : (m + 1) * 32] = model.weights[m]
    pi, top_pi = model.precision, model.top_precision
    hessian = np.block(
        [
            [pi * blocks.T @ blocks + (top_pi + model.alpha) * np.eye(96), -top_pi * upper],
            [-top_pi * upper.T, top_pi * upper.T @ upper + model.top_alpha * np.eye(128)],
        ]
    )
    drive = np.concatenate([pi * patches.reshape(4, -1) @ blocks, np.zeros((4, 128))], axis=1)
    expected = np.linalg.solve(hessian, drive.T).T
    np.testing.assert_allclose(np.concatenate([r.reshape(4, -1), top], axis=1), expected, atol=1e-9)


def test_learning_follows_the_gradient_of_the_energy(rng):
    torch = pytest.importorskip("torch")
    model = random_circuit(rng, weight_decay=0.3)
    patches = rng.standard_normal((5, 3, 256)) * 0.3
    r, top = model.settle_patches(patches)
    moved = model._learn(patches, rate=1e-3)
    weights = torch.tensor(model.weights, requires_grad=True)
    top_weights = torch.tensor(model.top_weights, requires_grad=True)
    loss = energy(
        torch,
        model,
        torch.tensor(patches),
        weights,
        top_weights,
        torch.tensor(r),
        torch.tensor(top),
    )
    (loss / 5).backward()
    # The rate is divided by the curvature in the weights where that exceeds 1.
    power = model.precision * np.linalg.norm(r.transpose(1, 0, 2), 2, axis=(1, 2)) ** 2 / 5
    top_power = model.top_precision * np.linalg.norm(top, 2) ** 2 / 5
    expected = -1e-3 / max(1.0, power.max()) * (weights.grad.numpy() + 0.3 * model.weights)
    top_expected = (
        -1e-3 / max(1.0, top_power) * (top_weights.grad.numpy() + 0.3 * model.top_weights)
    )
    np.testing.assert_allclose(moved.weights - model.weights, expected, atol=1e-12)
    np.testing.assert_allclose(moved.top_weights - model.top_weights, top_expected, atol=1e-12)


def test_training_explains_held_out_images_better(rng):
    torch = pytest.importorskip("torch")
    stimulus = training_stimulus(replace_n(BASE), "natural", seed=3)
    trained = BASE.fit(stimulus.isel(trial=slice(0, 1500)), seed=3)
    held_out = BASE.prepare(stimulus.isel(trial=slice(1500, 1700))).reshape(-1, 3, 256)

    def mean_energy(model):
        states = model.settle_patches(held_out, n_steps=200)
        parts = (held_out, model.weights, model.top_weights, *states)
        return float(energy(torch, model, *(torch.tensor(part) for part in parts))) / 200

    assert mean_energy(trained) < 0.7 * mean_energy(BASE.untrained(seed=3))


def replace_n(model):
    """A stand-in that asks the roster for fewer training images."""

    class Fewer:
        curriculum = "patches"
        n_training = {"quick": 1700}  # noqa: RUF012
        field_shape = model.field_shape
        px_per_deg = model.px_per_deg

    return Fewer()


def test_without_feedback_the_error_of_level_1_is_its_latent(rng):
    model = replace(random_circuit(rng), feedback_gain=0.0, record_dt=1.0)
    rate = model.run(random_images(rng))["rate"]
    level_1 = rate.isel(unit=(rate.level == 1).values)
    latent = level_1.isel(unit=(level_1.population == "latent").values)
    error = level_1.isel(unit=(level_1.population == "error").values)
    np.testing.assert_allclose(error, latent, atol=1e-12)


def test_seeds_give_the_same_and_other_weights(rng):
    stimulus = random_images(rng, n=20)
    first, again, other = (BASE.fit(stimulus, seed=s) for s in (5, 5, 6))
    assert (first.weights == again.weights).all()
    assert not np.allclose(first.weights, other.weights)


def test_a_field_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match=r"RaoBallard1999: found .*, expected .*"):
        BASE.run(stimulus_array(np.full((1, 1, 8, 8), 0.5), frame_duration=0.1, px_per_deg=16.0))


def test_grey_leaves_it_silent():
    assert float(np.abs(BASE.run(blank(BASE))["rate"]).max()) < 1e-12
