"""What the ways to infer refuse before they run."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from pcsim.deep.convolutional import Convolutional
from pcsim.deep.encodings import ErrorEncoding, GradientEncoding, LogSignGradientEncoding
from pcsim.deep.estimators import ScoreFunction
from pcsim.deep.evaluation import elbo, log_likelihood
from pcsim.deep.inference import infer
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_gradient import GradientAscent
from pcsim.deep.inference_hybrid import Hybrid
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.inference_ladder import Ladder
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected
from pcsim.deep.objective import Objective
from pcsim.deep.outputs import Gaussian
from pcsim.deep.posteriors import FullCovariance, TopDown


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def model_of(n_x, n_z):
    return LatentGaussian(n_x, n_z, Gaussian(0.7), generator=seeded())


@pytest.mark.parametrize("encoding", [GradientEncoding, ErrorEncoding, LogSignGradientEncoding])
@pytest.mark.parametrize("n_z", [(1,), (3, 1), (1, 3)])
def test_single_numbers_are_not_layer_normalised(encoding, n_z, refused):
    model, widths = model_of(4, n_z), [(8,)] * len(n_z)
    message = refused(Iterative, model, encoding=encoding(), widths=widths)
    assert f"to level {n_z.index(1) + 1}, expected more than one" in message
    assert "normalise_inputs=False" in message
    iterative = Iterative(model, encoding=encoding(), widths=widths, normalise_inputs=False)
    Iterative(model_of(4, (2,)), encoding=encoding(), widths=[(8,)])
    # What the refused network could not do: another datum of the same mean, another estimate.
    x = torch.tensor([[1.0, 0.0, 0.0, 0.0], [2.0, -1.0, 0.0, 0.0]])
    found = infer(iterative, model, x, generator=seeded()).q.parameters
    assert all((one[0] - one[1]).abs().max() > 1e-6 for one in found)


def test_a_datum_of_one_number_is_not_layer_normalised(refused):
    model = model_of(1, (2,))
    assert "normalise_inputs=False" in refused(Iterative, model, widths=[(8,)])
    assert "normalise_inputs=False" in refused(Direct, model, normalise_inputs=True)
    Iterative(model, encoding=GradientEncoding(with_x=False), widths=[(8,)])
    Direct(model, widths=[(8,)])


def test_data_out_of_all_proportion_are_not_blamed_on_a_step():
    x = torch.full((3, 4), 1e30)  # whose squares are no float32
    with pytest.raises(RuntimeError, match=r"at iteration 0, .* Scale the data"):
        infer(GradientAscent(), model_of(4, (2,)), x, generator=seeded())


def test_classes_and_foreign_objects_are_refused(refused):
    model, x = model_of(4, (2,)), torch.zeros(3, 4)
    direct = Direct(model, widths=[(8,)])

    def inferred(**changes):
        return refused(infer, direct, model, x, **{"generator": seeded(), **changes})

    assert "objective Objective, expected Objective()" in inferred(objective=Objective)
    assert "objective 0.5, expected Objective()" in inferred(objective=0.5)
    assert "estimator ScoreFunction, expected" in inferred(estimator=ScoreFunction)
    assert "estimator 'score', expected" in inferred(estimator="score")
    assert "generator 0, expected torch.Generator()" in inferred(generator=0)
    assert "generator 0, expected a torch.Generator" in refused(model.sample, 3, 0)
    for encoding, shown in ((ErrorEncoding, "ErrorEncoding"), ("gradient", "'gradient'")):
        message = refused(Iterative, model, encoding=encoding)
        assert f"encoding {shown}, expected one, such as ErrorEncoding()" in message
    for make in (partial(Direct, model), partial(Iterative, model), GradientAscent):
        assert "start FullCovariance" in refused(make, start=FullCovariance)
        assert "start 'prior'" in refused(make, start="prior")
    for make in (Direct, Iterative, Ladder):
        assert "networks Convolutional, expected" in refused(make, model, networks=Convolutional)


@pytest.mark.parametrize("widths", [(64, 64), 64, [64]])
@pytest.mark.parametrize("kind", [Direct, Iterative, Ladder])
def test_widths_of_no_level_are_refused(kind, widths, refused):
    for n_z in ((2,), (3, 2)):
        message = refused(kind, model_of(4, n_z), widths=widths)
        assert f"widths {widths!r}, expected one list of widths" in message
        assert f"Write [{widths!r}] for one level" in message


def test_decoders_that_are_no_list_of_networks_are_refused(refused):
    decoder = FullyConnected(3, (4,))
    assert "decoders FullyConnected" in refused(LatentGaussian, 6, (3,), decoders=decoder)
    assert "decoders that take () latents" in refused(LatentGaussian, 6, (3,), decoders=[])
    for given in ([decoder], torch.nn.ModuleList([decoder])):
        assert LatentGaussian(6, (3,), decoders=given).decoders[0] is decoder


def test_what_infer_returns_is_not_the_posterior(refused):
    model, x = model_of(4, (2,)), torch.zeros(3, 4)
    found = infer(GradientAscent(n_iterations=1), model, x, generator=seeded())
    for measure in (elbo, log_likelihood):
        message = refused(measure, model, x, found, generator=seeded())
        assert "its q" in message
        assert "Inferred" in message


def test_a_guess_of_another_family_of_equal_shapes_is_refused(refused):
    model, x = model_of(4, (3, 2)), torch.randn(5, 4, generator=seeded())
    widths = [(8,), (8,)]
    ladder = Ladder(model, widths=widths)
    mixed = Hybrid(ladder, Iterative(model, widths=widths))
    message = refused(infer, mixed, model, x, n_samples=2, generator=seeded())
    assert "a guess that is a TopDown, expected a MeanField" in message
    assert "start=TopDown.at_prior" in message
    for refinement in (Iterative(model, widths=widths, start=TopDown.at_prior), GradientAscent()):
        infer(Hybrid(ladder, refinement), model, x, n_iterations=2, generator=seeded())
    full = Hybrid(Direct(model, widths=[(8,)], start=FullCovariance.at_prior), mixed.refinement)
    assert "a guess that is a FullCovariance" in refused(infer, full, model, x, generator=seeded())
