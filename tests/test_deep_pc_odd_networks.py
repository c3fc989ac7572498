"""Networks, number types and modes of torch that users bring, and what of them is refused."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from pc_cases import drawn, energy_by_hand, filled, slopes_by_hand, tensor, weighed
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from pcsim.deep.pc_descent import AdamDescent, GradientDescent
from pcsim.deep.pc_energy import CrossEntropy, SquaredError
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_inference import infer
from pcsim.deep.pc_learning import (
    backprop_step,
    energy_gradients,
    incremental_step,
    local_gradients,
    train_step,
)
from pcsim.deep.pc_network import Node, PCNetwork
from pcsim.deep.pc_newton import Exact, GaussNewton
from pcsim.deep.pc_proximal import proximal_step
from pcsim.deep.pc_trace import predictive_coding
from pcsim.deep.pc_training import PCTrainingSettings, train


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's transpose; layers are called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.out = nn.Linear(6, 3), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.code(input=x))
        return self.out(input=functional.linear(code, self.code.weight.t()))


@pytest.mark.parametrize("cut", ["after_activation", "before_activation", []])
def test_local_rules_of_a_weight_that_is_also_used_by_itself(cut):
    network = weighed(TiedAutoencoder().double(), cut=cut)
    x = drawn(5, 6)
    states = infer(network, {"x": x, "output": x}, GradientDescent(n_steps=5)).states
    slopes, local = energy_gradients(network, states), local_gradients(network, states)
    for name, slope in slopes_by_hand(network, states).items():
        assert slope.abs().max() > 1e-3
        torch.testing.assert_close(slopes[name], slope)
        torch.testing.assert_close(local[name], slope)


class Attending(nn.Module):
    """Self-attention between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 2)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.inner(x))
        z = z + self.attend(z, z, z, need_weights=False)[0]
        return self.outer(z.mean(1))


def test_curvature_through_attention():
    network = weighed(Attending().double(), last=torch.tensor([0.7, 4.0]).double())
    clamp = {"x": drawn(4, 5, 3), "output": drawn(4, 2, seed=1)}
    newton = infer(network, clamp, GaussNewton(n_steps=50, tol=1e-10))
    with sdpa_kernel(SDPBackend.MATH):
        plain = infer(network, clamp, GradientDescent(n_steps=3000, step=0.1))
        by_hand = energy_by_hand(network, plain.states).detach()
    torch.testing.assert_close(plain.energy, by_hand)
    torch.testing.assert_close(newton.energy, by_hand)
    train(network, clamp, PCTrainingSettings(n_epochs=1, batch_size=2), progress=False)


class Laplace(nn.Module):
    """An energy of one's own that says it may be free."""

    quadratic = True
    precision = 2.0

    def forward(self, state: Tensor, prediction: Tensor) -> Tensor:
        return (state - prediction).square().flatten(1).sum(1)

    def weighted_error(self, state: Tensor, prediction: Tensor) -> Tensor:
        return 2.0 * (state - prediction)

    def curvature(self, direction: Tensor, prediction: Tensor, state: Tensor) -> Tensor:
        return 2.0 * direction

    def mean(self, prediction: Tensor) -> Tensor:
        return prediction


def test_an_energy_of_ones_own_is_like_the_one_it_equals(refused):
    body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    clamp = {"input": drawn(4, 3), "output": drawn(4, 2, seed=1)}
    for method in (ErrorOptimisation(n_steps=5, step="auto"), GradientDescent(n_steps=7)):
        own = infer(predictive_coding(body, energies={"_1": Laplace()}), clamp, method)
        same = infer(predictive_coding(body, energies={"_1": SquaredError(2.0)}), clamp, method)
        torch.testing.assert_close(own.states["_1"], same.states["_1"])

    class Bare:
        quadratic = True
        weighted_error = None

    words = refused(PCNetwork, ["x"], [Node("y", ("x",), nn.Linear(1, 1), Bare())])
    assert "torch.nn.Module" in words


@pytest.mark.parametrize(
    "method",
    [
        GradientDescent(n_steps=3),
        AdamDescent(n_steps=3),
        ErrorOptimisation(n_steps=3, step=1e-3),
        ErrorOptimisation(n_steps=3, step=1e-3, optimiser="adam"),
    ],
)
def test_energies_of_a_batch_beyond_the_largest_half(method):
    body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 784))
    clamp = {"input": drawn(256, 4).float(), "output": drawn(256, 784, seed=1).float()}
    single = infer(weighed(copy.deepcopy(body), last=0.7), clamp, method)
    assert float(single.energy.sum()) > 65504
    clamp = {name: value.half() for name, value in clamp.items()}
    half = infer(weighed(body.half(), last=0.7), clamp, method)
    torch.testing.assert_close(half.energy.float(), single.energy, rtol=5e-3, atol=0.0)


@pytest.mark.parametrize("method", [ErrorOptimisation(step="auto"), GaussNewton()])
def test_no_energy_rises_in_bfloat16_beyond_rounding(method, refused):
    body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 784))
    clamp = {"input": drawn(256, 4).bfloat16(), "output": drawn(256, 784, seed=1).bfloat16()}
    network = weighed(body.bfloat16())
    start = infer(network, clamp, GradientDescent(n_steps=0)).energy.float()
    end = infer(network, clamp, method).energy.float()
    assert bool((end <= start * (1 + 2e-2)).all())
    assert float(end.sum()) < 0.95 * float(start.sum())
    clamp = {name: value.half() for name, value in clamp.items()}
    assert "squares overflow" in refused(infer, weighed(body.half()), clamp, method)


def test_adam_in_half_takes_small_slopes_and_exact_refuses(refused):
    body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).half()
    clamp = {"input": drawn(4, 3).half(), "output": 1e-3 * drawn(4, 2).half()}
    settled = infer(weighed(body), clamp, AdamDescent(n_steps=20, step=1e-3))
    assert settled.energy.isfinite().all()
    linear = predictive_coding(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).bfloat16())
    clamp = {name: value.bfloat16() for name, value in clamp.items()}
    assert "float32 or float64" in refused(infer, linear, clamp, Exact())


def test_learning_under_autocast():
    body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    network = weighed(body)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    clamp = {"input": drawn(4, 3).float(), "output": drawn(4, 2, seed=1).float()}
    expected = infer(network, clamp, GradientDescent(n_steps=3)).energy
    with torch.autocast("cpu", torch.bfloat16):
        settled = train_step(network, clamp, GradientDescent(n_steps=3), optimiser)
    torch.testing.assert_close(settled.energy.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("widths", [(3, 2), (3, 4, 2)])
def test_learning_where_torch_records_nothing(mode, widths):
    def steps(network):
        optimiser = torch.optim.SGD(network.parameters(), 0.05)
        x, y = drawn(4, 3), drawn(4, 2, seed=1)
        method = GradientDescent(n_steps=3)
        clamp = {"input": x, "output": y}
        train_step(network, clamp, method, optimiser)
        train_step(network, clamp, method, optimiser, rule="local")
        incremental_step(network, clamp, method, optimiser)
        proximal_step(network, clamp, method, rate=0.5)
        backprop_step(network, {"input": x}, y, optimiser)

    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    body = nn.Sequential(*layers).double()
    other = copy.deepcopy(body)
    steps(weighed(body))
    network = weighed(other)
    with mode():
        steps(network)
    for one, two in zip(body.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_inference_leaves_a_spectral_norm_as_it_is(norm):
    torch.manual_seed(0)
    body = nn.Sequential(norm(nn.Linear(3, 4)), nn.Tanh(), norm(nn.Linear(4, 2))).double()
    network = weighed(body).train()
    clamp = {"input": drawn(4, 3), "output": drawn(4, 2, seed=1)}
    before = {name: value.clone() for name, value in body.state_dict().items()}
    for _ in range(2):
        infer(network, clamp, GradientDescent(n_steps=5), record=True)
    assert all(part.training for part in body.modules())
    for name, value in body.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_moves_while_it_is_used_is_refused(refused):
    moving = nn.Sequential(nn.Conv1d(1, 2, 3), nn.InstanceNorm1d(2, track_running_stats=True))
    assert "track_running_stats=False" in refused(predictive_coding, moving)
    assert predictive_coding(nn.Sequential(nn.Conv1d(1, 2, 3), nn.InstanceNorm1d(2)))


def test_axes_that_are_not_examples_or_units_are_refused(refused):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            z = self.inner(x).reshape(-1, 3)
            return self.outer(torch.tanh(z)).reshape(2, -1)

    network = predictive_coding(Flat().double())
    words = refused(infer, network, {"x": drawn(2, 5, 3), "output": drawn(2, 10)})
    assert "10 rows for 2 examples" in words

    class Squeezed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).squeeze(-1)

    network = predictive_coding(Squeezed(3, 1).double())
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    for given in (drawn(5), drawn(5, 1)):
        assert "axis" in refused(infer, network, {"x": drawn(5, 3), "output": given})
    assert "squeeze" in refused(backprop_step, network, {"x": drawn(5, 3)}, drawn(5, 1), optimiser)


def test_optimisers_that_need_more_are_refused(refused):
    network = predictive_coding(nn.Sequential(nn.Linear(3, 2)).double())
    clamp, method = {"input": drawn(4, 3), "output": drawn(4, 2)}, GradientDescent()
    for wrong in (torch.optim.LBFGS(network.parameters()), torch.optim.SGD, None):
        for rule in (train_step, incremental_step):
            assert "optimiser" in refused(rule, network, clamp, method, wrong)
        words = refused(backprop_step, network, {"input": clamp["input"]}, clamp["output"], wrong)
        assert "optimiser" in words


def test_proximal_steps_have_one_output(refused):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(x), self.two(x)

    network, y = predictive_coding(Two().double()), drawn(4, 2)
    clamp = {"x": drawn(4, 3), "output_0": y, "output_1": y}
    assert "one output" in refused(proximal_step, network, clamp, GradientDescent(), rate=1.0)


class Pooled(nn.Module):
    """A convolution, pooling by a function, and a residual link before the readout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, padding=1)
        self.readout = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = functional.max_pool2d(self.stem(x), 2)
        z = z + self.inner(torch.tanh(z))
        return self.readout(functional.adaptive_avg_pool2d(z, 2).flatten(1))


@pytest.mark.parametrize("cut", ["after_activation", "before_activation"])
def test_a_network_with_pooling_and_residual_links_is_pickled(rng, cut):
    body = filled(Pooled(), rng)
    hidden = list(predictive_coding(body, cut=cut).nodes)[:-1]
    energies = {name: SquaredError(0.7) for name in hidden}
    network = predictive_coding(body, cut=cut, energies=energies, output=CrossEntropy(4.0))
    assert len(hidden) == 2
    # Under a cross-entropy the network gives probabilities where the module gives logits.
    x, y = tensor(rng, 3, 1, 8, 8), torch.softmax(tensor(rng, 3, 3), 1)
    torch.testing.assert_close(network(x), body(x).softmax(1))
    clamp, method = {"x": x, "output": y}, ErrorOptimisation(n_steps=5, step="auto")
    settled = infer(network, clamp, method)
    twin = pickle.loads(pickle.dumps(network))
    assert torch.equal(twin(x), network(x))
    again = infer(twin, clamp, method)
    assert torch.equal(again.energy, settled.energy)
    for name, state in settled.states.items():
        assert torch.equal(again.states[name], state)
    # What learns in the twin is what it predicts with, and nothing of the first.
    before = network(x).detach()
    twin_slopes, slopes = (energy_gradients(n, settled.states) for n in (twin, network))
    for name, slope in slopes.items():
        assert torch.equal(twin_slopes[name], slope)
    train_step(twin, clamp, method, torch.optim.SGD(twin.parameters(), 0.1))
    assert not torch.equal(twin(x), before)
    assert torch.equal(network(x), before)
