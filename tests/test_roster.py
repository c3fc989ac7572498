"""Columns of the table: what they stand for, how they are trained, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pcsim import catalog, roster
from pcsim.roster import ROSTER, Variant, load_model, save_model, train, training_stimulus, variant

TOY = '''
"""A toy that learns the mean of what it sees."""

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Toy:
    gain: float = 0.7
    tau: float = float("inf")
    weights: object = field(default_factory=lambda: np.zeros((2, 3)))
    mean: float = 0.0
    names: tuple = ("a", ("b", 1))
    option: object = None
    table: object = field(default_factory=dict)
    rule: object = abs
    curriculum = "%(curriculum)s"
    n_training = {"quick": 6, "full": 9}
    field_shape = (5, 4)
    px_per_deg = 16.0

    def run(self, stimulus, *, seed=0, record=None):
        raise NotImplementedError

    def untrained(self, *, seed):
        return replace(self, weights=np.random.default_rng(seed).normal(size=(2, 3)))

    def fit(self, stimulus, *, seed=0):
        model = self.untrained(seed=seed)
        return replace(model, mean=float(stimulus.mean()), option=stimulus.shape)


MODEL = Toy()
'''


@pytest.fixture
def toy(tmp_path) -> str:
    (tmp_path / "toy.py").write_text(TOY % {"curriculum": "patches"})
    return str(tmp_path / "toy.py")


def test_labels_names_and_paths(toy):
    assert variant("RB-cut").lesion == {"feedback_gain": 0.0}
    assert variant("rao_ballard_1999").label == "RB"
    assert variant(toy) == Variant(label="toy", circuit=toy)
    with pytest.raises(ValueError, match="Did you mean 'RB-noise'"):
        variant("RB-nois")
    with pytest.raises(ValueError, match="Check the path"):
        variant("./nowhere.py")


def test_labels_are_unique_and_their_circuits_are_there():
    labels = [one.label for one in ROSTER]
    assert len(set(labels)) == len(labels)
    assert {one.circuit for one in ROSTER} <= set(catalog.names("circuits"))


def test_settings_and_lesions_name_fields_of_their_circuits():
    for one in ROSTER:
        roster.untrained(one)
    with pytest.raises(ValueError, match="Did you mean 'feedback_gain'"):
        roster.untrained(Variant(label="x", circuit="rao_ballard_1999", lesion={"feedback_gai": 0}))
    with pytest.raises(ValueError, match="Did you mean 'natural'"):
        Variant(label="x", circuit="rao_ballard_1999", training="naturl")


def test_a_lesion_shares_the_training_of_the_intact_column():
    assert variant("RB-cut").intact is variant("RB")
    assert variant("RB-noise").intact is variant("RB-noise")
    own = Variant(label="mine", circuit="rao_ballard_1999", settings={"alpha": 2}, lesion={"dt": 1})
    assert own.intact.lesion == {}
    assert own.intact.settings == {"alpha": 2}


def test_training_by_kind(toy):
    natural = train(Variant(label="toy", circuit=toy), seed=3)
    assert natural.option == (6, 1, 5, 4)
    assert 0.05 < natural.mean < 0.95
    full = train(Variant(label="toy", circuit=toy), seed=3, scale="full")
    assert full.option[0] == 9
    random = train(Variant(label="toy", circuit=toy, training="none"), seed=3)
    assert random.option is None
    np.testing.assert_array_equal(random.weights, natural.weights)
    assert not np.array_equal(random.weights, train(variant(toy), seed=4).weights)
    cut = train(
        Variant(label="toy", circuit=toy, settings={"gain": 4.0}, lesion={"mean": 0}), seed=3
    )
    assert (cut.gain, cut.mean, cut.option) == (4.0, 0, (6, 1, 5, 4))


def test_white_noise_has_the_mean_and_variance_of_natural_input(toy, tmp_path):
    model = catalog.load("circuits", toy)
    object.__setattr__(model, "n_training", {"quick": 400, "full": 400})
    natural = training_stimulus(model, "natural", seed=1)
    noise = training_stimulus(model, "white_noise", seed=1)
    assert noise.dims == natural.dims
    assert noise.shape == natural.shape
    assert noise.min() >= 0
    assert noise.max() <= 1
    # Clipping at 0 and 1 moves both a little; 8000 values leave standard errors below 0.003.
    assert float(noise.mean()) == pytest.approx(float(natural.mean()), abs=0.03)
    assert float(noise.std()) == pytest.approx(float(natural.std()), abs=0.05)
    frames = noise.values.reshape(400, 5, 4)
    neighbours = np.corrcoef(frames[:, :, :-1].ravel(), frames[:, :, 1:].ravel())[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(6000)
    with pytest.raises(ValueError, match="Did you mean 'quick'"):
        training_stimulus(model, "natural", seed=1, scale="quic")


def test_sequences(tmp_path):
    path = tmp_path / "moving.py"
    path.write_text(TOY % {"curriculum": "sequences"})
    stimulus = training_stimulus(catalog.load("circuits", path), "natural", seed=1)
    assert stimulus.sizes["trial"] == 6
    assert stimulus.sizes["time"] == 500


def test_a_saved_model_comes_back_whole(toy, tmp_path):
    model = train(Variant(label="toy", circuit=toy, settings={"tau": 0.02}), seed=1)
    object.__setattr__(model, "table", {"a": (1, None), "b": 1e-300})
    save_model(model, tmp_path / "model", toy)
    found = load_model(tmp_path / "model")
    np.testing.assert_array_equal(found.weights, model.weights)
    assert found.weights.dtype == model.weights.dtype
    for name in ("gain", "tau", "mean", "names", "option", "table", "rule"):
        assert getattr(found, name) == getattr(model, name)


def test_infinities_and_unchanged_functions_survive(toy, tmp_path):
    save_model(catalog.load("circuits", toy), tmp_path / "model", toy)
    assert load_model(tmp_path / "model").tau == float("inf")
    assert not list(Path(tmp_path / "model").glob("*.pkl"))


def test_what_cannot_be_saved_is_refused_and_nothing_is_left(toy, tmp_path):
    model = catalog.load("circuits", toy)
    changed = type(model)(rule=print)
    with pytest.raises(TypeError, match="rule of type"):
        save_model(changed, tmp_path / "model", toy)
    assert not (tmp_path / "model").exists()


def test_damaged_models_are_refused(toy, tmp_path):
    model = train(Variant(label="toy", circuit=toy), seed=1)
    save_model(model, tmp_path / "model", toy)
    arrays = tmp_path / "model" / "arrays.npz"
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="Train it again"):
        load_model(tmp_path / "model")
    arrays.write_bytes(whole)
    Path(toy).write_text((TOY % {"curriculum": "patches"}).replace("Toy", "Other"))
    with pytest.raises(ValueError, match="a Toy with fields"):
        load_model(tmp_path / "model")
    with pytest.raises(ValueError, match="no readable file"):
        load_model(tmp_path / "nowhere")


def test_a_learner_must_say_what_it_learns_from(tmp_path):
    path = tmp_path / "bare.py"
    path.write_text((TOY % {"curriculum": "patches"}).replace("curriculum =", "other ="))
    with pytest.raises(ValueError, match="no curriculum"):
        train(variant(str(path)), seed=0)
