"""Units of masked outputs that were not seen: they weigh nothing and teach nothing."""

from __future__ import annotations

import math

import pytest
import torch
from pc_cases import drawn
from torch import Tensor, nn

from pcsim.deep.pc_clamp import Masked
from pcsim.deep.pc_descent import GradientDescent
from pcsim.deep.pc_energy import BinaryCrossEntropy, CrossEntropy, SquaredError
from pcsim.deep.pc_errors import ErrorOptimisation
from pcsim.deep.pc_hybrid import guess, hybrid_step, reverse_chain
from pcsim.deep.pc_inference import infer
from pcsim.deep.pc_learning import energy_gradients, local_gradients, train_step
from pcsim.deep.pc_network import Node, PCNetwork, Prior
from pcsim.deep.pc_newton import Exact, GaussNewton
from pcsim.deep.pc_rules import InferenceLearning
from pcsim.deep.pc_trace import predictive_coding
from pcsim.deep.pc_training import PCTrainingSettings, train

METHODS = [
    GradientDescent(n_steps=400, step=0.2),
    ErrorOptimisation(n_steps=200, step="auto"),
    GaussNewton(n_steps=50, tol=1e-12),
    Exact(),
]


def linear(seed=0):
    """Return a linear network of two layers with learned precisions."""
    body = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)).double()
    with torch.no_grad():
        for number, one in enumerate(body.parameters()):
            one.copy_(0.5 * drawn(*one.shape, seed=seed + number))
    outer = SquaredError(torch.tensor([0.5, 1.0, 2.0, 3.0, 0.7]).double(), learnable=True)
    return predictive_coding(
        body, energies={"_0": SquaredError(1.5)}, output=outer, cut="before_activation"
    )


@pytest.mark.parametrize("method", METHODS)
def test_unseen_units_are_as_if_the_network_had_no_such_output(method):
    network, x, y = linear(), drawn(6, 3), drawn(6, 5, seed=1)
    seen = torch.tensor([True, False, True, True, False])
    found = infer(network, {"input": x, "output": Masked(y, seen)}, method)
    # The same network with those rows of the last layer, and their precisions, cut off.
    smaller = linear()
    layer, energy = smaller.body[1], smaller.nodes["output"].energy
    layer.weight = nn.Parameter(layer.weight.detach()[seen])
    layer.bias = nn.Parameter(layer.bias.detach()[seen])
    energy.log_precision = nn.Parameter(energy.log_precision.detach()[seen])
    alone = infer(smaller, {"input": x, "output": y[:, seen]}, method)
    torch.testing.assert_close(found.energy, alone.energy)
    torch.testing.assert_close(found.states["_0"], alone.states["_0"])
    predicted = network.predict("output", found.states).detach()
    torch.testing.assert_close(found.states["output"][:, ~seen], predicted[:, ~seen])
    expected = energy_gradients(smaller, alone.states)
    for rule in (energy_gradients, local_gradients):
        slopes = rule(network, found.states, idle=found.idle, unseen=found.unseen)
        for name, slope in slopes.items():
            if slope.shape == expected[name].shape:
                torch.testing.assert_close(slope, expected[name])
            else:
                torch.testing.assert_close(slope[seen], expected[name])
                assert not slope[~seen].any()


def compare_slopes(network, found, alone, share):
    """Compare slopes of both rules with those of the labelled share of the examples alone."""
    expected = energy_gradients(network, alone.states)
    for rule in (energy_gradients, local_gradients):
        slopes = rule(network, found.states, idle=found.idle, unseen=found.unseen)
        for name, slope in slopes.items():
            torch.testing.assert_close(slope, expected[name] * share)


def classifier(output, n_out=5):
    """Return a network of two layers, tanh between, with this energy at its output."""
    body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, n_out)).double()
    with torch.no_grad():
        for number, one in enumerate(body.parameters()):
            one.copy_(0.5 * drawn(*one.shape, seed=number))
    return predictive_coding(body, energies={"_1": SquaredError(1.5)}, output=output)


@pytest.mark.parametrize("method", METHODS[:3])
def test_unseen_pixels_of_a_bernoulli_density_are_as_if_there_were_none(method):
    network, x = classifier(BinaryCrossEntropy(0.6)), drawn(6, 3)
    y = (drawn(6, 5, seed=1) > 0).double()
    seen = torch.tensor([True, False, True, True, False])
    found = infer(network, {"input": x, "output": Masked(y, seen)}, method)
    smaller = classifier(BinaryCrossEntropy(0.6))
    layer = smaller.body[2]
    layer.weight = nn.Parameter(layer.weight.detach()[seen])
    layer.bias = nn.Parameter(layer.bias.detach()[seen])
    alone = infer(smaller, {"input": x, "output": y[:, seen]}, method)
    torch.testing.assert_close(found.energy, alone.energy)
    torch.testing.assert_close(found.states["_1"], alone.states["_1"])
    mean = network.predict("output", found.states).detach().sigmoid()
    torch.testing.assert_close(found.states["output"][:, ~seen], mean[:, ~seen])
    expected = energy_gradients(smaller, alone.states)
    for rule in (energy_gradients, local_gradients):
        slopes = rule(network, found.states, idle=found.idle, unseen=found.unseen)
        for name, slope in slopes.items():
            own = slope if slope.shape == expected[name].shape else slope[seen]
            torch.testing.assert_close(own, expected[name])


@pytest.mark.parametrize("method", METHODS[:3])
def test_examples_without_labels_leave_those_with_labels_as_they_are_alone(method):
    network, x = classifier(CrossEntropy(0.6)), drawn(6, 3)
    y = nn.functional.one_hot(torch.arange(6) % 5, 5).double()
    known = torch.tensor([True, True, False, True, False, True])
    clamp = {"input": x, "output": Masked(y, known[:, None])}
    found = infer(network, clamp, method)
    alone = infer(network, {"input": x[known], "output": y[known]}, method)
    forward = network.feedforward({"input": x[~known]})
    for name in ("_1", "output"):
        torch.testing.assert_close(found.states[name][known], alone.states[name])
        torch.testing.assert_close(found.states[name][~known], forward[name].detach())
    torch.testing.assert_close(found.energy[known], alone.energy)
    assert not found.energy[~known].any()
    compare_slopes(network, found, alone, 4 / 6)


def test_a_hidden_precision_learns_from_labelled_examples_alone():
    network, x, y = linear(), drawn(6, 3), drawn(6, 5, seed=1)
    energy = SquaredError(torch.tensor([0.5, 1.5, 2.0, 3.0]).double(), learnable=True)
    network = network.with_energy("_0", energy)
    known = torch.tensor([True, False, False, True, True, False])
    found = infer(network, {"input": x, "output": Masked(y, known[:, None])}, METHODS[2])
    alone = infer(network, {"input": x[known], "output": y[known]}, METHODS[2])
    compare_slopes(network, found, alone, 3 / 6)
    nothing = {"input": x, "output": Masked(y, torch.zeros(1, dtype=torch.bool))}
    assert infer(network, nothing).idle == infer(network, {"input": x}).idle


def test_semi_supervised_training_needs_a_label_somewhere(refused):
    x, y = drawn(8, 3), nn.functional.one_hot(torch.arange(8) % 5, 5).double()
    network = classifier(CrossEntropy(0.6))
    before = [p.detach().clone() for p in network.parameters()]
    settings = PCTrainingSettings(
        n_epochs=2, batch_size=2, learning_rate=0.1, device="cpu",
        rule=InferenceLearning(method=GradientDescent(n_steps=5, step=0.2)),
    )  # fmt: skip
    none = {"input": x, "output": Masked(y, torch.zeros(1, dtype=torch.bool))}
    message = refused(train, network, none, settings, progress=False)
    assert "nothing held but ['input']" in message
    one = {"input": x, "output": Masked(y, (torch.arange(8) == 7)[:, None])}
    train(network, one, settings, progress=False)
    pairs = zip(before, network.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs)


class Absolute(nn.Module):
    """An energy that does not say what each unit adds."""

    quadratic, precision = False, 2.0

    def forward(self, state, prediction):
        return 2.0 * (state - prediction).abs().flatten(1).sum(1)

    def weighted_error(self, state, prediction):
        return 2.0 * (state - prediction).sign()

    def mean(self, prediction):
        return prediction


def test_masks_that_an_energy_does_not_allow_are_refused(refused):
    x, y = drawn(2, 3), torch.full((2, 5), 0.2).double()
    part = Masked(y, torch.tensor([True, True, False, False, False]))
    message = refused(infer, classifier(CrossEntropy(0.6)), {"input": x, "output": part})
    assert "parts the classes of an example" in message
    message = refused(infer, classifier(Absolute()), {"input": x, "output": part})
    assert "'output' with Absolute held in part" in message
    hidden = predictive_coding(
        classifier(SquaredError(0.7)).body, energies={"_1": BinaryCrossEntropy()}
    )
    part = Masked(drawn(2, 4).sigmoid(), torch.tensor([True, False, True, True]))
    message = refused(infer, hidden, {"input": x, "_1": part, "output": y})
    assert "'_1' with BinaryCrossEntropy partly free" in message


def test_a_precision_is_learned_from_what_was_seen():
    # The best precision of n errors is n over the sum of their squares.
    y = 2.0 * drawn(4000, 1)
    seen = drawn(4000, 1, seed=1) < -0.7
    bias = nn.Linear(1, 1).double().requires_grad_(False)
    nn.init.zeros_(bias.bias)
    energy = SquaredError(torch.ones(()).double(), learnable=True)
    network = PCNetwork(["x"], [Node("y", ("x",), bias, energy)])
    clamp = {"x": torch.zeros(4000, 1).double(), "y": Masked(y, seen)}
    settings = PCTrainingSettings(
        n_epochs=300, batch_size=4000, learning_rate=0.05, device="cpu",
        rule=InferenceLearning(method=GradientDescent(n_steps=2)),
    )  # fmt: skip
    train(network, clamp, settings, progress=False)
    expected = float(seen.sum() / y[seen].square().sum())
    assert float(energy.precision.detach()) == pytest.approx(expected, rel=1e-3)


def test_energies_of_unseen_outputs_are_those_of_free_ones():
    network, x, y = linear(), drawn(2, 3), drawn(2, 5)
    free = infer(network, {"input": x}, GradientDescent(n_steps=3))
    nothing = torch.zeros(5, dtype=torch.bool)
    masked = infer(network, {"input": x, "output": Masked(y, nothing)}, GradientDescent(n_steps=3))
    torch.testing.assert_close(masked.energy, free.energy)


def test_a_mask_of_everything_holds_the_node_whole():
    network, x, y = linear(), drawn(2, 3), drawn(2, 5)
    whole = infer(network, {"input": x, "output": y})
    masked = infer(network, {"input": x, "output": Masked(y, torch.tensor(True))})
    torch.testing.assert_close(masked.energy, whole.energy)


class Filling(nn.Module):
    """A decoder of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, z: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(z)))


def test_a_decoder_with_a_prior_learns_from_outputs_alone(refused):
    network = predictive_coding(Filling().double(), priors={"z": torch.zeros(2).double()})
    assert network.inputs == ()
    assert network.names[0] == "z"
    y = drawn(64, 2, seed=3) @ drawn(2, 3, seed=4)
    settings = PCTrainingSettings(n_epochs=60, batch_size=64, learning_rate=0.02, device="cpu")
    done = train(network, {"output": y}, settings, progress=False)
    assert done.history[-1]["train"] < 0.7 * done.history[0]["train"]
    # Linear, the lowest energy is that of the marginal Gaussian of the outputs.
    body = nn.Sequential(nn.Linear(2, 3, bias=False)).double()
    mean = drawn(2, seed=5)
    own = {"input": SquaredError(2.0), "output": SquaredError(3.0)}
    network = predictive_coding(body, priors={"input": mean}, energies=own)
    weight = body[0].weight.detach()
    settled = infer(network, {"output": y}, Exact())
    error = y - mean @ weight.T
    spread = weight @ weight.T / 2.0 + torch.eye(3).double() / 3.0
    expected = 0.5 * (error @ torch.linalg.inv(spread) * error).sum(1)
    constant = -0.5 * (2 * math.log(2.0) + 3 * math.log(3.0))
    torch.testing.assert_close(settled.energy, expected + constant)
    for wrong, says in (({"x": mean}, "input"), ({"input": 0.0}, "a tensor")):
        assert says in refused(predictive_coding, body, priors=wrong)


def test_masked_outputs_teach_in_a_step():
    network, x, y = linear(), drawn(6, 3), drawn(6, 5, seed=1)
    seen = drawn(6, 5, seed=2) > 0
    optimiser = torch.optim.SGD(network.parameters(), 1e-3)
    clamp = {"input": x, "output": Masked(y, seen)}
    energies = [
        float(train_step(network, clamp, GaussNewton(), optimiser, rule=rule).energy.mean())
        for rule in ("energy", "local") * 20
    ]
    assert energies[-1] < energies[0]


def branching(*, learnable=True):
    """Return a graph of one input, a hidden node and two outputs, with precisions a unit."""
    sizes = {"h": ("x", 3, 4), "y": ("h", 4, 2), "w": ("h", 4, 3)}
    nodes = []
    for number, (name, (parent, m, n)) in enumerate(sizes.items()):
        layer = nn.Sequential(nn.Tanh(), nn.Linear(m, n)).double()
        with torch.no_grad():
            for one in layer.parameters():
                one.copy_(0.5 * drawn(*one.shape, seed=number))
        precision = (0.5 + torch.arange(n) / 2 + number).double()
        nodes.append(Node(name, (parent,), layer, SquaredError(precision, learnable=learnable)))
    return PCNetwork(["x"], nodes, outputs=["y", "w"])


ROWS = torch.tensor([True, False, True, False, False])[:, None]
CLAMPS = {
    "outputs that differ": {"y": ROWS, "w": ~ROWS},
    "one output in some rows": {"y": ROWS},
    "a hidden part above them": {"h": torch.tensor([True, True, False, False]), "y": ROWS},
    "a hidden part alone": {"h": torch.tensor([True, True, False, False])},
    "units of an output": {"w": torch.tensor([True, False, True]), "y": ROWS},
}


@pytest.mark.parametrize("masks", CLAMPS.values(), ids=list(CLAMPS))
@pytest.mark.parametrize("method", METHODS[:3])
def test_each_example_is_what_it_is_alone(masks, method):
    network, x = branching(), drawn(5, 3)
    values = {"h": drawn(5, 4, seed=1), "y": drawn(5, 2, seed=2), "w": drawn(5, 3, seed=3)}
    whole = {n: Masked(values[n], mask.expand_as(values[n])) for n, mask in masks.items()}
    found = infer(network, {"x": x} | whole, method)
    slopes = energy_gradients(network, found.states, idle=found.idle, unseen=found.unseen)
    local = local_gradients(network, found.states, idle=found.idle, unseen=found.unseen)
    total = {name: torch.zeros_like(slope) for name, slope in slopes.items()}
    for row in range(5):
        here = slice(row, row + 1)
        part = {name: Masked(one.value[here], one.mask[here]) for name, one in whole.items()}
        alone = infer(network, {"x": x[here]} | part, method)
        torch.testing.assert_close(found.energy[here], alone.energy)
        for name, state in alone.states.items():
            torch.testing.assert_close(found.states[name][here], state)
        own = energy_gradients(network, alone.states, idle=alone.idle, unseen=alone.unseen)
        for name, slope in own.items():
            total[name] += slope / 5
    for name, slope in total.items():
        torch.testing.assert_close(slopes[name], slope)
        torch.testing.assert_close(local[name], slope)
    for name in found.idle:
        predicted = network.predict(name, found.states).detach()
        torch.testing.assert_close(found.states[name], predicted)


def test_a_generative_network_of_which_nothing_is_held():
    prior = Prior(torch.tensor([0.3, -0.2]).double())
    layer = nn.Linear(2, 3).double()
    nodes = [Node("z", (), prior, SquaredError(0.7)), Node("y", ("z",), layer, SquaredError(2.0))]
    network = PCNetwork([], nodes)
    clamp = {"y": Masked(drawn(4, 3), torch.zeros(1, dtype=torch.bool))}
    for method in METHODS:
        found = infer(network, clamp, method)
        assert not found.energy.any()
        torch.testing.assert_close(found.states["z"], prior.mean.expand(4, 2))
    kept = found.states["z"].clone()
    prior.mean += 1.0
    assert torch.equal(found.states["z"], kept)
    train_step(network, clamp, METHODS[0], torch.optim.SGD(network.parameters(), 0.1))


class Softplus(nn.Module):
    """An energy whose slope is not 0 at its mean, and that does not say what each unit adds."""

    quadratic, precision = True, 1.0

    def forward(self, state, prediction):
        return nn.functional.softplus(state - prediction).flatten(1).sum(1)

    def weighted_error(self, state, prediction):
        return (state - prediction).sigmoid()

    def curvature(self, direction, prediction, state):
        slope = (state - prediction).sigmoid()
        return slope * (1 - slope) * direction

    def mean(self, prediction):
        return prediction


def test_rules_agree_for_an_energy_of_ones_own_with_examples_unseen():
    network, x, y = classifier(Softplus()), drawn(5, 3), drawn(5, 5, seed=1)
    found = infer(network, {"input": x, "output": Masked(y, ROWS)}, METHODS[0])
    alone = infer(network, {"input": x[ROWS[:, 0]], "output": y[ROWS[:, 0]]}, METHODS[0])
    torch.testing.assert_close(found.energy[ROWS[:, 0]], alone.energy)
    compare_slopes(network, found, alone, 2 / 5)


def test_hooks_that_are_not_odd_meet_the_slope_itself_under_both_rules():
    network, x, y = classifier(SquaredError(0.7)), drawn(5, 3), drawn(5, 5, seed=1)
    states = infer(network, {"input": x, "output": y}).states
    plain = energy_gradients(network, states)["body.2.weight"]
    network.body[2].weight.register_hook(lambda slope: slope.clamp(min=0.0))
    for rule in (energy_gradients, local_gradients):
        slope = rule(network, states)["body.2.weight"]
        torch.testing.assert_close(slope, plain.clamp(min=0.0))


def test_a_threshold_looks_at_what_was_seen():
    network, x, y = classifier(SquaredError(0.7)), drawn(40, 3), drawn(40, 5, seed=1)
    known = (torch.arange(40) < 4)[:, None]
    method = GradientDescent(n_steps=50, step=0.1, threshold=0.3)
    alone = infer(network, {"input": x[:4], "output": y[:4]}, method)
    among = infer(network, {"input": x, "output": Masked(y, known)}, method)
    assert among.n_steps == alone.n_steps > 0


def test_a_hybrid_step_starts_what_is_not_held_at_the_guess():
    network, y = classifier(SquaredError(0.7)), drawn(4, 5)
    amortizer = reverse_chain(network)
    known = torch.tensor([True, False, True, False])[:, None]
    label = drawn(4, 3, seed=1)
    clamp = {"output": y, "input": Masked(torch.where(known, label, 77.0), known)}
    begin = guess(amortizer, clamp)
    optimisers = tuple(torch.optim.SGD(one.parameters(), 0.1) for one in (network, amortizer))
    method = GradientDescent(n_steps=0)
    found = hybrid_step(network, amortizer, clamp, method, optimisers=optimisers)
    expected = torch.where(known, label, begin["input"])
    torch.testing.assert_close(found.states["input"], expected)
