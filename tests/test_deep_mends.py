"""What once ran off, crashed or was passed over in latent Gaussian models and in trainers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pcsim.deep.curvature import latent_curvature
from pcsim.deep.flows import Flow, Flowed
from pcsim.deep.inference import infer
from pcsim.deep.inference_gradient import GradientAscent, PointEstimate
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.pc_fast import PlainTrainer
from pcsim.deep.pc_gradients import trainable
from pcsim.deep.pc_learning import energy_gradients
from pcsim.deep.pc_newton import GaussNewton
from pcsim.deep.pc_trace import predictive_coding
from pcsim.deep.posteriors import MeanField
from pcsim.deep.training import train
from pcsim.deep.training_settings import TrainingSettings
from pcsim.deep.training_step import check_loss


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def pixels(generator, n=20, n_x=64):
    return torch.bernoulli(torch.full((n, n_x), 0.4), generator=generator)


@pytest.mark.parametrize("update", ["additive", "learned_step"])
def test_an_untrained_update_keeps_to_its_start(generator, update):
    decoders = [FullyConnected(n, (32,), generator=generator) for n in (8, 4)]
    model = LatentGaussian(64, (8, 4), decoders=decoders)
    network = Iterative(model, update=update, widths=[(32,)] * 2, generator=generator)
    trace = infer(network, model, pixels(generator), generator=generator).trace.mean(1)
    assert float(trace.max()) < 1.5 * float(trace[0])


def test_a_run_that_begins_beyond_all_proportion_is_stopped():
    with pytest.raises(RuntimeError, match="mean free energy of 1e"):
        check_loss("train", 1e29, 1e29, 64, 0)
    check_loss("train", 64e5, 64e5, 64, 0)  # grey values of a thousand, not yet learned


def test_curvature_leaves_running_averages_alone(generator):
    decoder = FullyConnected(4, (8,), normalization="batch", generator=generator)
    model = LatentGaussian(64, (4,), decoders=[decoder], generator=generator)
    model.train()
    x = pixels(generator)
    kept = [one.clone() for one in model.buffers()]
    draw = MeanField.at_prior(model, len(x)).sample(model, 2, generator)
    latent_curvature(model, x, draw)
    assert all(torch.equal(a, b) for a, b in zip(kept, model.buffers(), strict=True))
    assert all(one.training for one in model.modules())
    found = train(model, PointEstimate(), x, TrainingSettings(n_epochs=1), progress=False)
    assert len(found.history) == 1


def test_flows_that_nothing_would_train_are_refused(generator):
    model, flows = LatentGaussian(6, (3,), generator=generator), [Flow(3, generator=generator)]
    ascent = GradientAscent(start=lambda m, n: Flowed.at_prior(m, n, flows))
    with pytest.raises(ValueError, match="flows that GradientAscent would leave as they are"):
        train(model, ascent, pixels(generator, n_x=6), TrainingSettings(n_epochs=1))


def test_flows_take_the_number_type_of_the_model(generator):
    model = LatentGaussian(6, (3,), generator=generator).double()
    flows = [Flow(3, generator=generator)]
    ascent = GradientAscent(start=lambda m, n: Flowed.at_prior(m, n, flows), n_iterations=2)
    found = infer(ascent, model, pixels(generator, n_x=6).double(), generator=generator)
    assert found.trace.dtype == torch.float64


def test_a_trainer_takes_inference_beyond_plain_steps(generator):
    network = predictive_coding(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))).double()
    x, y = torch.ones(5, 3).double(), torch.zeros(5, 2).double()
    before = {name: one.detach().clone() for name, one in trainable(network).items()}
    trainer = PlainTrainer(network, GaussNewton(), learning_rate=0.1)
    trainer(x, y)
    moved = trainable(network)
    states = trainer.states
    changed = {name: before[name] - one.detach() for name, one in moved.items()}
    with torch.no_grad():
        for name, one in moved.items():
            one.copy_(before[name])
    for name, slope in energy_gradients(network, states).items():
        torch.testing.assert_close(changed[name], 0.1 * slope, rtol=0, atol=1e-12)
