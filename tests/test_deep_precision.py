"""Training in half and shortened precision: it runs, and gradients are those of full precision."""

from __future__ import annotations

import pytest
import torch

from pcsim.deep.encodings import ErrorEncoding
from pcsim.deep.inference_direct import Direct
from pcsim.deep.inference_hybrid import Hybrid
from pcsim.deep.inference_iterative import Iterative
from pcsim.deep.inference_ladder import Ladder
from pcsim.deep.latent_gaussian import LatentGaussian
from pcsim.deep.networks import FullyConnected, mixed
from pcsim.deep.training import TrainingSettings, train

KINDS = ("direct", "square", "gated", "additive", "learned_step", "recurrent", "hybrid", "ladder")


def pair(kind):
    """Two levels, and an inference with the default networks (highway links, 512 units)."""
    generator = torch.Generator().manual_seed(3)
    decoders = [FullyConnected(n, [16, 16], link="highway", generator=generator) for n in (6, 4)]
    model = LatentGaussian(20, (6, 4), decoders=decoders, generator=generator)
    iterative = {"encoding": ErrorEncoding(), "n_iterations": 2, "generator": generator}
    if kind == "direct":
        return model, Direct(model, generator=generator)
    if kind == "square":  # a first layer as wide as the data: what passes its gate is in full
        return model, Direct(model, widths=[(20, 20), (16,)], generator=generator)
    if kind == "ladder":
        return model, Ladder(model, generator=generator)
    if kind == "hybrid":
        refinement = Iterative(model, **iterative)
        return model, Hybrid(Direct(model, generator=generator), refinement)
    if kind == "recurrent":
        return model, Iterative(model, recurrent=True, **iterative)
    return model, Iterative(model, update=kind, **iterative)


@pytest.fixture
def x(rng):
    return torch.as_tensor(rng.integers(0, 2, (64, 20)), dtype=torch.float32)


def one_step(kind, precision, x):
    """The free energy met in one step, and the gradients it left, part by part."""
    modules = pair(kind)
    settings = TrainingSettings(
        n_epochs=1, batch_size=64, n_samples=8, precision=precision, device="cpu"
    )
    done = train(*modules, x, settings, progress=False)
    assert all(one.dtype == torch.float32 for part in modules for one in part.parameters())
    slopes = [
        {name: one.grad for name, one in part.named_parameters() if one.grad is not None}
        for part in modules
    ]
    return done.history[0]["train"], slopes


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_has_the_gradients_of_float32_to_its_own_rounding(kind, x):
    full, expected = one_step(kind, "float32", x)
    half, found = one_step(kind, "bfloat16", x)
    assert half == pytest.approx(full, rel=2e-2)
    assert half != full
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, slope in other.items():
            # 8 bits of mantissa, some layers deep: within a tenth, in direction and in length.
            distance = float((one[name] - slope).norm() / slope.norm())
            assert distance < 0.1, (name, distance)


def test_bfloat16_learns(x):
    settings = TrainingSettings(
        n_epochs=15, batch_size=16, learning_rate=3e-3, precision="bfloat16", device="cpu"
    )
    done = train(*pair("direct"), x[:, :1].expand(-1, 20).contiguous(), settings, progress=False)
    # All features are one coin: without latents 20 ln 2 = 13.9 nats, with them down to ln 2.
    assert done.history[-1]["train"] < 9.0


@pytest.mark.parametrize("kind", ["direct", "gated"])
def test_tf32_is_asked_for_inside_training_alone_and_is_float32_on_a_cpu(kind, x):
    before = torch.get_float32_matmul_precision()
    full, expected = one_step(kind, "float32", x)
    short, found = one_step(kind, "tf32", x)
    assert torch.get_float32_matmul_precision() == before
    # Ten bits of mantissa at worst, where a CPU has such products.
    assert short == pytest.approx(full, rel=5e-3)
    for one, other in zip(found, expected, strict=True):
        for name, slope in other.items():
            assert float((one[name] - slope).norm() / slope.norm()) < 0.02, name


def test_a_gate_mixes_in_the_widest_type_and_leaves_equal_types_alone(rng):
    new, old, gate = (torch.as_tensor(rng.random((5, 7)), dtype=torch.float32) for _ in range(3))
    assert torch.equal(mixed(new, old, gate), torch.lerp(new, old, gate))
    found = mixed(new.bfloat16(), old, gate.bfloat16())
    assert found.dtype == torch.float32
    expected = gate.double() * old.double() + (1 - gate.double()) * new.double()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2**-7)
