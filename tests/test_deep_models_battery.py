"""Deep models in the battery, and the twins of rate circuits."""

from __future__ import annotations

import itertools
from dataclasses import replace

import deep_cases
import numpy as np
import pytest
import torch

from pcsim.catalog import load
from pcsim.circuit import settle
from pcsim.contract import check_model
from pcsim.deep.battery import DeepModel
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_gradient import GradientAscent, PointEstimate
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.linear_gaussian import LinearGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Bernoulli, Gaussian, Multinomial
from pcsim.deep.posteriors import FullCovariance, Point, TopDown
from pcsim.deep.twins import twin_of
from pcsim.hierarchy import Flat, GaussianPrior, Hierarchy, Level, SparsePrior, free_energy
from pcsim.inference import map_gauss_newton
from pcsim.responses import stimulus_array

SIZES = (5, 4, 3)

generator = deep_cases.generator


def linear_model(generator):
    model = LatentGaussian(5, (4, 3), Gaussian(4.0), prior_precision=0.7, generator=generator)
    return model.double()


def stimulus(rng, n_trials=3, n_frames=2, n_x=5):
    values = rng.normal(size=(n_trials, n_frames, n_x))
    return stimulus_array(values, frame_duration=0.1, condition=list("abc")[:n_trials])


def chosen(responses, name):
    return responses.rate.values[:, :, responses.name.values == name]


def test_iterations_are_times_and_end_at_the_posterior_mean(generator, rng):
    shown, model = stimulus(rng), linear_model(generator)
    inference = PointEstimate(optimiser="momentum", step=0.02)
    deep = DeepModel(model=model, inference=inference, n_iterations=400)
    responses = deep.run(shown)
    assert responses.sizes == {"trial": 3, "time": 800, "unit": 43}
    np.testing.assert_allclose(responses.time[[0, 399, 799]], [0.1 / 400, 0.1, 0.2], rtol=1e-12)
    assert responses.frame.values[[399, 400]].tolist() == [0, 1]
    assert responses.iteration.values[[399, 400]].tolist() == [400, 1]
    exact = LinearGaussian.of(model)
    for frame, last in ((0, 399), (1, 799)):
        x = torch.as_tensor(shown.values[:, frame])
        for level, mean in enumerate(exact.posterior(x)[0].split([4, 3], -1), 1):
            np.testing.assert_allclose(
                chosen(responses, f"latent_{level}")[:, last], mean, rtol=0, atol=1e-8
            )


def test_errors_are_observed_minus_predicted_and_weighed(generator, rng):
    shown = stimulus(rng)
    responses = DeepModel(model=linear_model(generator), n_iterations=7).run(shown)
    observed = {0: np.repeat(shown.values, 7, axis=1)}
    observed |= {level: chosen(responses, f"latent_{level}") for level in (1, 2)}
    for level, precision in ((0, 4.0), (1, 0.7), (2, 1.0)):
        error = chosen(responses, f"error_{level}")
        expected = observed[level] - chosen(responses, f"prediction_{level}")
        np.testing.assert_allclose(error, expected, rtol=0, atol=1e-12)
        weighted = chosen(responses, f"weighted_error_{level}")
        np.testing.assert_allclose(weighted, precision * error, rtol=1e-12, atol=1e-13)
    # the free energy that is recorded is that of the recorded state
    f = linear_free_energy(responses, 7)
    np.testing.assert_allclose(responses.free_energy, f, rtol=1e-10)


def linear_free_energy(responses, n):
    total = 0.0
    for level, precision in ((0, 4.0), (1, 0.7), (2, 1.0)):
        error = chosen(responses, f"error_{level}")
        constant = np.log(2 * np.pi / precision)
        total = total + 0.5 * (precision * error**2 + constant).sum(-1)
    return total


INFERENCES = {
    "point": lambda model: PointEstimate(optimiser="adam", step=0.1),
    "mean_field": lambda model: GradientAscent(step=0.05),
    "ladder": lambda model: GradientAscent(step=0.05, start=TopDown.at_prior),
    "direct": lambda model: Direct(model, widths=[[8]], start=FullCovariance.at_prior),
    "iterative": lambda model: Iterative(model, widths=[[8], [8]], normalization="batch"),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("inference", INFERENCES)
def test_deep_models_obey_the_contract(dtype, inference, generator):
    decoders = [FullyConnected(4, (6,), normalization="batch"), FullyConnected(3, (6,))]
    model = LatentGaussian(6, (4, 3), Bernoulli(), decoders=decoders, generator=generator).to(dtype)
    deep = DeepModel(
        model=model, inference=INFERENCES[inference](model), n_iterations=4, n_samples=2,
        field_shape=(2, 3), px_per_deg=8.0, labels={"error_0": {"x": np.arange(6.0), "area": "V1"}},
    )  # fmt: skip
    assert check_model(deep) == []
    assert model.training


def test_recording_a_part_is_the_part(generator, rng):
    deep = DeepModel(model=linear_model(generator), n_iterations=3)
    shown, wanted = stimulus(rng), ["error_1", "latent_2"]
    whole, part = deep.run(shown), deep.run(shown, record=wanted)
    assert part.sizes["unit"] == 7
    for name in wanted:
        np.testing.assert_array_equal(chosen(part, name), chosen(whole, name))


def random_hierarchy(rng, inner, outer, priors):
    levels = tuple(
        Level(0.5 * rng.normal(size=(n, m)), rng.uniform(0.7, 4.0, n), outer=outer, inner=inner)
        for n, m in itertools.pairwise(SIZES)
    )
    return Hierarchy(levels, priors)


FULL = np.array([[2.0, 0.3, 0.0], [0.3, 0.7, 0.1], [0.0, 0.1, 4.0]])
PRIORS = {
    "flat": (Flat(), GaussianPrior(np.array([0.3, -1.0, 2.0]), 0.7)),
    "gaussian": (GaussianPrior(0.4, 4.0), GaussianPrior(0.0, np.array([0.7, 2.0, 4.0]))),
    "full": (GaussianPrior(0.4, 0.7), GaussianPrior(0.2, FULL)),
    "sparse": (SparsePrior(0.7), SparsePrior(4.0)),
}


@pytest.mark.parametrize("priors", PRIORS)
@pytest.mark.parametrize("inner", ["linear", "tanh"])
@pytest.mark.parametrize("outer", ["linear", "tanh"])
def test_twin_has_the_free_energy_of_the_hierarchy(inner, outer, priors, rng):
    """Differences between states, in which constants cancel, against equations on NumPy."""
    hierarchy = random_hierarchy(rng, inner, outer, PRIORS[priors])
    states = [rng.normal(size=(6, n)) for n in SIZES]
    q = Point(tuple(torch.as_tensor(mu) for mu in states[1:]))
    found = twin_of(hierarchy).free_energy(torch.as_tensor(states[0]), q).total.numpy()
    expected = free_energy(hierarchy, states)
    tolerance = 1e-10 if priors in ("flat", "gaussian") else 1e-4  # a top of precision exp(-15)
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("priors", PRIORS)
def test_priors_of_arrays_add_their_energies_in_the_type_of_the_model(dtype, priors, rng):
    """Against the priors on NumPy in double precision: nothing of them is rounded on the way."""
    given = PRIORS[priors]
    plain = LatentGaussian(5, (4, 3)).to(dtype)
    model = LatentGaussian(5, (4, 3), priors=given).to(dtype)
    z = [rng.normal(size=(6, n)) for n in (4, 3)]
    q = Point(tuple(torch.as_tensor(one).to(dtype) for one in z))
    x = torch.as_tensor(rng.integers(0, 2, size=(6, 5))).to(dtype)
    with torch.no_grad():
        found = model.free_energy(x, q).total - plain.free_energy(x, q).total
    expected = sum(prior.energy(one, np) for prior, one in zip(given, z, strict=True))
    assert found.dtype == dtype
    tolerance = {"rtol": 0, "atol": 1e-12 if dtype == torch.float64 else 2e-5}
    np.testing.assert_allclose(found, expected, **tolerance)


@pytest.mark.parametrize("priors", PRIORS)
def test_twin_ends_where_gauss_newton_does(priors, rng):
    hierarchy = random_hierarchy(rng, "tanh", "linear", PRIORS[priors])
    x = rng.normal(size=(3, 1, 5))
    inference = PointEstimate(optimiser="momentum", step=0.02)
    deep = DeepModel(model=twin_of(hierarchy), inference=inference, n_iterations=800)
    responses = deep.run(stimulus_array(x, frame_duration=0.1))
    best = map_gauss_newton(hierarchy, x[:, 0])
    for level in (1, 2):
        found = chosen(responses, f"latent_{level}")[:, -1]
        np.testing.assert_allclose(found, best.states[level], rtol=0, atol=1e-4)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("gain", [1.0, 0.0, 1.7])
def test_twin_of_rao_and_ballard_rests_where_the_circuit_does(sparse, gain, rng):
    deep = load("circuits", "rao_ballard_1999_deep")
    circuit = load("circuits", "rao_ballard_1999")
    circuit = replace(
        circuit, sparse=sparse, feedback_gain=gain, precision=0.7, top_precision=0.3, alpha=0.4,
        top_alpha=0.2, input_gain=6.0,
    )  # fmt: skip
    rows, columns = circuit.field_shape
    image = rng.uniform(size=(2, 1, rows, columns))
    shown = stimulus_array(image, frame_duration=0.1, px_per_deg=16.0)
    rest = settle(circuit, shown, tol=1e-7)
    twin = replace(deep, circuit=circuit, n_iterations=600).run(shown).isel(time=-1)
    for population, level in (("latent", 1), ("latent", 2), ("error", 0), ("error", 1)):
        a, b = (
            r.rate.values.reshape(2, -1)[
                :, (r.population.values == population) & (r.level.values == level)
            ]
            for r in (rest, twin)
        )
        assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max()
        assert np.abs(a).max() > 1e-2 or (gain == 0.0 and population == "latent" and level == 2)


def test_twin_declares_what_it_is_the_twin_of():
    import pcsim.circuits.rao_ballard_1999_deep as module

    assert type(module.MODEL.circuit) is type(load("circuits", module.EQUIVALENT_TO))
    shown = stimulus_array(
        np.full((1, 1, *module.MODEL.field_shape), 0.5), frame_duration=0.1, px_per_deg=16.0
    )
    units = replace(module.MODEL, n_iterations=1).run(shown)
    ours = load("circuits", module.EQUIVALENT_TO).populations
    for name in ("error_0", "latent_1", "error_1"):
        here = units.isel(unit=units.name.values == name)
        theirs = [p for p in ours if p.name.startswith(name)]
        np.testing.assert_array_equal(here.x, np.concatenate([p.x for p in theirs]))
        np.testing.assert_array_equal(here.channel, np.concatenate([p.channel for p in theirs]))
        assert set(here.area.values) == {theirs[0].area}


@pytest.mark.parametrize(
    ("output", "value", "says"),
    [
        (Bernoulli(), -50.0, "x from -50 to -50"),
        (Gaussian(0.7, bin_width=1 / 255, limits=(0.0, 1.0)), 255.0, "x from 255 to 255"),
        (Multinomial(), 0.5, "no whole number"),
    ],
    ids=str,
)
def test_what_the_output_cannot_be_is_refused(output, value, says, generator, refused):
    deep = DeepModel(model=LatentGaussian(4, (3,), output, generator=generator), n_iterations=2)
    shown = stimulus_array(np.full((2, 1, 4), value), frame_duration=0.1)
    assert says in refused(deep.run, shown)
    assert np.isfinite(deep.run(0 * shown).rate).all()


def test_errors_of_counts_are_of_as_many_events_as_there_are(generator, rng):
    """Of a multinomial the weighted error is the error: x minus n times the softmax."""
    model = LatentGaussian(4, (3,), Multinomial(50), generator=generator).double()
    counts = rng.integers(0, 9, size=(3, 2, 4)).astype(float)
    shown = stimulus_array(counts, frame_duration=0.1)
    responses = DeepModel(model=model, n_iterations=3).run(shown)
    error, weighted, prediction = (
        chosen(responses, f"{name}_0") for name in ("error", "weighted_error", "prediction")
    )
    np.testing.assert_allclose(error, weighted, rtol=0, atol=1e-12)
    observed = np.repeat(counts, 3, axis=1)
    np.testing.assert_allclose(prediction, observed - error, rtol=0, atol=1e-12)
    np.testing.assert_allclose(prediction.sum(-1), observed.sum(-1), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_inference_that_runs_off_is_stopped_in_words(dtype, generator, rng):
    inference = PointEstimate(optimiser="momentum", step=50.0)
    model = linear_model(generator).to(dtype)
    deep = DeepModel(model=model, inference=inference, n_iterations=400)
    with pytest.raises(RuntimeError, match="free energies NaN or infinite at iteration"):
        deep.run(stimulus(rng))


def test_refusals(refused, rng, generator):
    deep = DeepModel(model=linear_model(generator), n_iterations=2)
    assert "Did you mean 'latent_1'" in refused(deep.run, stimulus(rng), record=["latent1"])
    assert "5, as the model has" in refused(deep.run, stimulus(rng, n_x=4))
    assert "n_iterations" in refused(DeepModel, model=deep.model, n_iterations=0)
    assert "'error_0'" in refused(DeepModel, model=deep.model, labels={"error0": {}})
    assert "found model 3" in refused(DeepModel, model=3)
    message = refused(DeepModel, model=deep.model, inference=PointEstimate)
    assert "inference PointEstimate" in message
    message = refused(DeepModel, model=deep.model, labels={"latent_1": {"x": [1, 2]}})
    assert "'x' of shape (2,) for 'latent_1', expected 4 values" in message
    full = Hierarchy((Level(np.ones((3, 2)), FULL),), (Flat(),))
    assert "diagonal" in refused(twin_of, full)
