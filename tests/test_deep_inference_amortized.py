"""Amortized inference: its gradients, what it is equal to, and what it learns."""

from __future__ import annotations

import deep_cases
import pytest
import torch
from deep_cases import normal
from torch.nn.functional import softplus

from pcsim.deep.encodings import (
    ErrorEncoding,
    GradientEncoding,
    LogSignGradientEncoding,
    weighted_errors,
)
from pcsim.deep.estimators import Pathwise
from pcsim.deep.flows import Flow, Flowed
from pcsim.deep.full_covariance import FullCovariance
from pcsim.deep.inference import Evaluation, infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_gradient import GradientAscent, PointEstimate
from pcsim.deep.inference_hybrid import Hybrid
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.inference_ladder import Ladder
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.linear_gaussian import LinearGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.outputs import Gaussian
from pcsim.deep.posteriors import MeanField, Point
from pcsim.deep.training import TrainingSettings, train
from pcsim.deep.training_step import TrainingStep
from pcsim.deep.updates import Additive, Gated, LearnedStep

SMALL = {"widths": [[8, 8], [6, 6]]}
ENCODINGS = [
    encoding(with_x=with_x)
    for encoding in (GradientEncoding, ErrorEncoding, LogSignGradientEncoding)
    for with_x in (True, False)
]

generator = deep_cases.generator


def nonlinear(generator):
    """Two levels, nonlinear, at precisions that show a slip."""
    decoders = [FullyConnected(n, [7], generator=generator) for n in (4, 3)]
    model = LatentGaussian(
        5, (4, 3), Gaussian(4.0), decoders=decoders, prior_precision=0.7, generator=generator
    )
    return model.double()


def inferences(model, generator):
    """One of each kind."""
    direct = Direct(model, generator=generator, **SMALL)
    some = [
        Iterative(model, encoding=encoding, n_iterations=2, generator=generator, **SMALL)
        for encoding in ENCODINGS
    ]
    return [
        direct, *some, Ladder(model, generator=generator, **SMALL), Hybrid(direct, some[0]),
        Iterative(model, recurrent=True, update="learned_step", generator=generator, **SMALL),
        Direct(model, start=FullCovariance.at_prior, widths=[[8]], generator=generator),
        Iterative(model, encoding=ErrorEncoding(), start=FullCovariance.at_prior, widths=[[8]],
                  generator=generator),
        GradientAscent(n_iterations=3), PointEstimate(n_iterations=3),
    ]  # fmt: skip


class Attached:
    """Pathwise gradients; beside them, on the same noise, free energies with the graph of q."""

    def __init__(self, generator):
        self.generator, self.totals, self.last = generator, [], None

    def free_energy(self, *arguments):
        return Pathwise().free_energy(*arguments)

    def gradient(self, model, x, q, n_samples, objective, generator):
        state = generator.get_state()
        with torch.enable_grad():
            attached = Pathwise().free_energy(model, x, q, n_samples, objective, generator)
        self.totals.append(attached.total)
        generator.set_state(state)
        return Pathwise().gradient(model, x, q, n_samples, objective, generator)


@pytest.mark.parametrize("kind", ["direct", "iterative", "ladder", "hybrid"])
def test_split_chain_rule_is_the_gradient_of_autograd(kind, generator):
    model = nonlinear(generator)
    x = normal(generator, 6, 5)
    direct = Direct(model, generator=generator, **SMALL)
    iterative = Iterative(model, n_iterations=3, generator=generator, **SMALL)
    chosen = {"direct": direct, "iterative": iterative, "hybrid": Hybrid(direct, iterative),
              "ladder": Ladder(model, generator=generator, **SMALL)}[kind]  # fmt: skip
    step, estimator = TrainingStep(model, chosen), Attached(generator)
    loss, _ = step(x, Evaluation(n_samples=2, estimator=estimator, generator=generator), None)
    learned = list(chosen.parameters())
    split = torch.autograd.grad(loss, learned, retain_graph=True)
    hanging = [one for one in estimator.totals if one.requires_grad]
    n_steps = {"direct": 1, "iterative": 3, "ladder": 1, "hybrid": 4}[kind]
    totals = hanging[-n_steps:]
    whole = torch.autograd.grad(torch.stack(totals).mean(), learned)
    for one, other in zip(split, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_generative_gradient_comes_from_the_last_iteration_alone(generator):
    model = nonlinear(generator)
    x = normal(generator, 6, 5)
    iterative = Iterative(model, n_iterations=3, generator=generator, **SMALL)
    step, estimator = TrainingStep(model, iterative), Attached(generator)
    loss, _ = step(x, Evaluation(estimator=estimator, generator=generator), None)
    learned = list(model.parameters())
    found = torch.autograd.grad(loss, learned, retain_graph=True)
    last = torch.autograd.grad(estimator.totals[-1].mean(), learned)
    for one, other in zip(found, last, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_no_graph_runs_from_one_iteration_to_the_next(generator):
    model, x = nonlinear(generator), normal(generator, 6, 5)
    iterative = Iterative(model, n_iterations=2, generator=generator, **SMALL)
    _, one, other = iterative.steps(model, x, Evaluation(generator=generator))
    total = torch.stack([parameter.sum() for parameter in other.q.parameters]).sum()
    slopes = torch.autograd.grad(total, one.q.parameters, allow_unused=True)
    assert slopes == (None,) * 4


def test_examples_do_not_know_of_each_other(generator, monkeypatch):
    def constant(shape, like, generator):
        return torch.full(tuple(shape), 0.3, dtype=like.dtype)

    for module in ("posteriors", "full_covariance"):
        monkeypatch.setattr(f"pcsim.deep.{module}.noise", constant)
    model = nonlinear(generator)
    x = normal(generator, 4, 5)
    for inference in inferences(model, generator):
        together = infer(inference, model, x).q.parameters
        alone = [infer(inference, model, row[None]).q.parameters for row in x]
        for one, rows in zip(together, zip(*alone, strict=True), strict=True):
            torch.testing.assert_close(one, torch.cat(rows), rtol=0, atol=1e-10)


def test_iterations_and_samples_are_free_at_test_time(generator):
    model = nonlinear(generator)
    iterative = Iterative(model, n_iterations=2, generator=generator, **SMALL)
    for n_iterations, n_samples in ((0, 1), (1, 3), (7, 2)):
        found = infer(
            iterative, model, normal(generator, 3, 5), n_iterations=n_iterations,
            n_samples=n_samples, generator=generator,
        )  # fmt: skip
        assert found.trace.shape == (n_iterations + 1, 3)
        assert found.gradients.shape == (n_iterations + 1, 4)


def test_one_step_on_errors_is_a_direct_model_up_to_an_affine_map(generator):
    # Constant start and prior, so x enters through xi = Pi (x - g(mu_0)) alone, affinely.
    model = LatentGaussian(5, (4,), Gaussian(0.7), decoders=[FullyConnected(4, [7])]).double()
    x = normal(generator, 6, 5)
    iterative = Iterative(
        model, encoding=ErrorEncoding(with_x=False), update="additive", start=Point.at_prior,
        widths=[[8]], link="plain", normalise_inputs=False, n_iterations=1, generator=generator,
    )  # fmt: skip
    direct = Direct(model, start=Point.at_prior, widths=[[8]], link="plain", generator=generator)
    first, own = iterative.networks[0].linears[0], direct.networks[0].linears[0]
    with torch.no_grad():
        # Inputs are the estimate (4, zero), xi_x (5) and xi_z (4, zero).
        seen = first.weight[:, 4:9]
        (predicted,) = model.output_parameters(torch.zeros(4, dtype=torch.float64))
        own.weight.copy_(0.7 * seen)
        own.bias.copy_(first.bias - 0.7 * seen @ predicted)
        direct.heads[0][0].load_state_dict(iterative.updates[0][0].delta.state_dict())
    (one,), (other,) = (infer(i, model, x).q.parameters for i in (iterative, direct))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_weighted_errors_make_the_gradient(generator):
    linear = LinearGaussian(
        (normal(generator, 5, 4), normal(generator, 4, 3)),
        (normal(generator, 5), normal(generator, 4), normal(generator, 3)),
        (torch.full((5,), 4.0).double(), torch.full((4,), 0.7).double(),
         torch.full((3,), 0.5).double()),
    )  # fmt: skip
    model, x = linear.model(), normal(generator, 6, 5)
    q = Point((normal(generator, 6, 4), normal(generator, 6, 3)))
    evaluation = Evaluation(generator=generator)
    step = evaluation.at(model, x, q)
    xi_0, xi_1, xi_2 = weighted_errors(model, x, step, evaluation)
    torch.testing.assert_close(step.gradient[0], xi_1 - xi_0 @ linear.weights[0])
    torch.testing.assert_close(step.gradient[1], xi_2 - xi_1 @ linear.weights[1])


def test_log_sign_encoding_can_be_undone(generator):
    model, x = nonlinear(generator), normal(generator, 6, 5)
    evaluation = Evaluation(generator=generator)
    step = evaluation.at(model, x, MeanField.at_prior(model, 6))
    levels = LogSignGradientEncoding(with_x=False, floor=1e-5).inputs(model, x, step, evaluation)
    size, sign = levels[0][2:4]
    torch.testing.assert_close(sign * (size.exp() - 1e-5), step.gradient[0])


@pytest.mark.parametrize("encoding", ENCODINGS, ids=repr)
def test_only_an_encoding_with_x_sees_x(encoding, generator):
    model, x = nonlinear(generator), normal(generator, 6, 5)
    evaluation = Evaluation(generator=generator)
    step = evaluation.at(model, x, MeanField.at_prior(model, 6))
    levels = encoding.inputs(model, x, step, evaluation)
    assert any(one is x for one in levels[0]) == encoding.with_x
    assert not any(one.requires_grad for level in levels for one in level)


def test_inputs_are_normalised_over_features_each_on_its_own(generator):
    model, x = nonlinear(generator), 30.0 * normal(generator, 6, 5)
    iterative = Iterative(model, n_iterations=2, generator=generator, **SMALL)
    seen = []
    iterative.networks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    infer(iterative, model, x, generator=generator)
    for part in seen[1].split([5, 4, 4, 4, 4], -1):
        torch.testing.assert_close(part.mean(-1), torch.zeros(6).double(), rtol=0, atol=1e-10)
        assert bool((part.var(-1, correction=0) <= 1.0).all())


def test_updates_do_what_their_equations_say(generator):
    value, gradient = normal(generator, 2, 3), normal(generator, 2, 3)
    features = normal(generator, 2, 4)
    gated, additive, learned = (
        kind(4, 3, generator).double() for kind in (Gated, Additive, LearnedStep)
    )
    gate, delta = torch.sigmoid(gated.gate(features)), gated.delta(features)
    found = gated(features, value, gradient)
    torch.testing.assert_close(found, gate * value + (1 - gate) * delta)
    found = additive(features, value, gradient)
    torch.testing.assert_close(found, value + additive.delta(features))
    size = softplus(learned.size(features))
    found = learned(features, value, gradient)
    torch.testing.assert_close(found, value - size * gradient + learned.delta(features))


def test_a_recurrent_network_remembers(generator):
    model, x = nonlinear(generator), normal(generator, 4, 5)
    found = Iterative(model, recurrent=True, n_iterations=2, generator=generator, **SMALL)
    loss, _ = TrainingStep(model, found)(x, Evaluation(generator=generator), None)
    # What the second iteration keeps of the first reaches the weights on the memory alone.
    (slope,) = torch.autograd.grad(loss, [found.cells[0].new.weight])
    assert float(slope[:, 8:].abs().max()) > 0


def known(generator):
    """A linear Gaussian model with a diagonal posterior, so that MeanField can be exact."""
    basis = torch.linalg.qr(normal(generator, 16, 8))[0]
    linear = LinearGaussian(
        (basis * torch.linspace(0.5, 1.4, 8).double(),),
        (normal(generator, 16), normal(generator, 8)),
        (torch.full((16,), 4.0).double(), torch.full((8,), 0.7).double()),
    )
    model = linear.model()
    return linear, model.requires_grad_(False), model.sample(1024, generator)[0]


def distances(inference, linear, model, generator):
    """Free energy above -log p(x) at the start of inference and at its end, on fresh data."""
    x = model.sample(512, generator)[0]
    found = infer(inference, model, x, generator=generator, n_samples=50)
    above = found.trace + linear.log_evidence(x)
    return above[0].mean(), above[-1].mean()


def test_a_trained_linear_encoder_is_exact(generator):
    # The posterior mean is linear in x and the variance constant: no hidden layer is needed.
    linear, model, x = known(generator)
    direct = Direct(model, widths=[[]], generator=generator)
    settings = TrainingSettings(
        n_epochs=40, learning_rate=0.03, learning_rate_decay=0.9, precision="float64", n_samples=4
    )
    train(model, direct, x, settings, progress=False)
    # Within a hundredth of the prior's distance; the standard error is near 0.02 nats.
    start = distances(GradientAscent(n_iterations=0), linear, model, generator)[0]
    assert -0.1 < distances(direct, linear, model, generator)[1] < 0.01 * start


@pytest.mark.parametrize(
    ("encoding", "update"),
    [(GradientEncoding(), "gated"), (GradientEncoding(), "additive"),
     (GradientEncoding(), "learned_step"), (ErrorEncoding(), "gated"),
     (LogSignGradientEncoding(), "gated"), (GradientEncoding(with_x=False), "gated")],
    ids=repr,
)  # fmt: skip
def test_trained_iterations_end_near_the_exact_posterior(encoding, update, generator):
    linear, model, x = known(generator)
    iterative = Iterative(
        model, encoding=encoding, update=update, n_iterations=3, widths=[[32]], link="plain",
        generator=generator,
    )  # fmt: skip
    settings = TrainingSettings(
        n_epochs=15, learning_rate=5e-3, learning_rate_decay=0.85, precision="float64", n_samples=2
    )
    train(model, iterative, x, settings, progress=False)
    start, end = distances(iterative, linear, model, generator)
    assert -0.1 < end < 0.12 * start


def test_trained_hybrid_and_ladder_end_near_the_exact_posterior(generator):
    linear, model, x = known(generator)
    direct = Direct(model, widths=[[]], generator=generator)
    iterative = Iterative(model, n_iterations=2, widths=[[16]], link="plain", generator=generator)
    settings = TrainingSettings(
        n_epochs=15, learning_rate=0.02, learning_rate_decay=0.8, precision="float64", n_samples=2
    )
    start = distances(GradientAscent(n_iterations=0), linear, model, generator)[0]
    for inference in (Hybrid(direct, iterative), Ladder(model, widths=[[]], generator=generator)):
        train(model, inference, x, settings, progress=False)
        assert -0.1 < distances(inference, linear, model, generator)[1] < 0.12 * start


def entangled(generator):
    """A linear Gaussian model whose latents the data entangle, and what that costs mean field.

    The best factorised Gaussian has the precisions on the diagonal of the posterior's precision
    matrix; its divergence is half the log of the product of those over the determinant.
    """
    basis = torch.linalg.qr(normal(generator, 8, 3))[0]
    mixing = torch.eye(3).double() + 0.8
    precisions = (torch.full((8,), 4.0).double(), torch.full((3,), 0.7).double())
    biases = (normal(generator, 8), normal(generator, 3))
    linear = LinearGaussian((basis @ mixing,), biases, precisions)
    exact = 0.7 * torch.eye(3).double() + 4.0 * mixing.T @ mixing
    cost = 0.5 * (exact.diagonal().log().sum() - torch.linalg.slogdet(exact)[1])
    return linear, linear.model().requires_grad_(False), float(cost)


def know_the_mean(direct, linear):
    """Give a linear encoder the exact posterior mean; its spread is left to learn."""
    origin = torch.zeros(1, 8).double()
    at_origin = linear.posterior(origin)[0]
    slope = linear.posterior(torch.eye(8).double())[0] - at_origin
    (heads,) = direct.heads
    with torch.no_grad():
        heads[0].weight.copy_(slope.T)
        heads[0].bias.copy_(at_origin[0])
        for head in heads[1:]:
            head.weight.zero_()
            head.bias.zero_()


def test_trained_lateral_dependencies_close_the_gap_of_mean_field(generator):
    linear, model, cost = entangled(generator)
    x = model.sample(1024, generator)[0]
    flows = [Flow(3, n_steps=1, widths=(32,), generator=generator).double()]
    settings = TrainingSettings(
        n_epochs=20, learning_rate=0.05, learning_rate_decay=0.75, precision="float64", n_samples=4
    )
    left = {}
    for name, start in {
        "mean field": MeanField.at_prior,
        "full covariance": FullCovariance.at_prior,
        "flow": lambda model, n: Flowed.at_prior(model, n, flows),
    }.items():
        direct = Direct(model, widths=[[]], start=start, generator=generator)
        know_the_mean(direct, linear)
        train(model, direct, x, settings, progress=False)
        left[name] = float(distances(direct, linear, model, generator)[1])
    assert cost > 0.5
    # Sampling errors are near 0.03 nats.
    assert cost - 0.1 < left["mean field"] < 2.0 * cost
    assert -0.1 < left["full covariance"] < 0.4 * cost
    assert -0.1 < left["flow"] < 0.4 * cost


def test_networks_refuse_what_does_not_fit(refused, generator):
    model = nonlinear(generator)
    assert "one list of widths" in refused(Direct, model, widths=[[8]])
    assert "Did you mean 'gated'" in refused(Iterative, model, update="gate")


@pytest.mark.parametrize("update", ["additive", "learned_step"])
def test_an_untrained_update_keeps_to_its_start(generator, update):
    decoders = [FullyConnected(n, (32,), generator=generator) for n in (8, 4)]
    model = LatentGaussian(64, (8, 4), decoders=decoders)
    network = Iterative(model, update=update, widths=[(32,)] * 2, generator=generator)
    x = torch.bernoulli(torch.full((20, 64), 0.4), generator=generator)
    trace = infer(network, model, x, generator=generator).trace.mean(1)
    assert float(trace.max()) < 1.5 * float(trace[0])
