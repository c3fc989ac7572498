"""A part of a training that was cut off goes on in its folder, and forgets nothing it watched."""

from __future__ import annotations

import pytest
import torch
from training_cases import Stop

from pcsim.deep.arm_training import restored, train_part
from pcsim.deep.arms import Arm
from pcsim.deep.inference import infer
from pcsim.deep.training import TrainingSettings, train
from pcsim.deep.training_step import generator_for
from pcsim.storage import read_json

SETTINGS = TrainingSettings(n_epochs=4, batch_size=16, learning_rate=1e-2, device="cpu")
ARM = Arm(n_z=(3,), widths=((8,),), n_iterations=2)


class Calls:
    n, limit = 0, None


def counted(rows, generator):
    Calls.n += 1
    if Calls.n == Calls.limit:
        raise Stop
    return rows


def part_of(folder, x, part, needs=(), limit=None):
    """Train; return the weights, the history, what was watched and the batches that it took."""
    folder.mkdir(exist_ok=True)
    Calls.n, Calls.limit = 0, limit
    pair = ARM.build(10, 0)
    done = train_part(
        folder, {str(one): one for one in needs}, pair, x, SETTINGS, part=part, prepare=counted,
        watched=x[:5],
    )  # fmt: skip
    weights = [one for module in pair for one in module.state_dict().values()]
    return weights, done.history, read_json(folder / "watched.json"), Calls.n


@pytest.mark.parametrize("n_parts", [1, 2])
def test_a_part_that_was_cut_off_goes_on_where_it_was(n_parts, rng, tmp_path):
    x = torch.as_tensor(rng.random((64, 10)), dtype=torch.float32)
    needs = []
    if n_parts == 2:
        part_of(tmp_path / "first", x, (1, 2))
        needs = [tmp_path / "first"]
    last = n_parts, n_parts
    weights, history, watched, n_batches = part_of(tmp_path / "whole", x, last, needs)
    assert len(history) == len(watched) == 4
    # In the last epoch, after the look at the data and all other batches.
    with pytest.raises(Stop):
        part_of(tmp_path / "cut", x, last, needs, limit=n_batches - 2)
    found = part_of(tmp_path / "cut", x, last, needs)
    assert all(torch.equal(one, other) for one, other in zip(weights, found[0], strict=True))
    assert found[1] == history
    assert found[2] == watched
    assert found[3] == 1 + 4  # the look at the data, and the four batches of one epoch


def test_what_is_restored_infers_as_what_was_trained(rng, tmp_path):
    x = torch.as_tensor(rng.random((64, 10)), dtype=torch.float32)
    arm = {"n_z": (3,), "widths": ((8,),), "n_iterations": 2, "normalization": "batch"}
    pair = Arm(**arm).build(10, 0)
    train(*pair, x, SETTINGS, folder=tmp_path, progress=False)
    other = restored(arm, 10, tmp_path)
    # Running means of 64 examples, not the means of these three.
    found = [
        infer(inference, model, x[:3], generator=generator_for("cpu", 1)).trace
        for model, inference in (pair, other)
    ]
    assert torch.equal(*found)
