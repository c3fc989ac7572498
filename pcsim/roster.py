"""The columns of the table: which circuit, trained on what, with which lesion.

A roster label is a circuit with settings (before training), a training and a lesion (after it).
Trained models are saved as arrays and plain numbers beside the name of the circuit they came from.
RB is the battery's RB-sparse, RB-gauss its Gaussian twin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pcsim import catalog
from pcsim.messages import check_choice, refusal, unknown_name
from pcsim.model import Learner, Model, lesion
from pcsim.storage import atomic_path, read_json, write_json

__all__ = [
    "ROSTER",
    "SCALES",
    "Variant",
    "load_model",
    "save_model",
    "train",
    "training_stimulus",
    "untrained",
    "variant",
]

SCALES = ("quick", "full")
TRAININGS = ("natural", "white_noise", "none")
CURRICULA = ("patches", "sequences", "own")
""""own": the learner makes its stimuli itself, ``training(kind, seed=..., scale=...)``."""
MOVIE: Mapping[str, Any] = {"n_frames": 500, "frame_duration": 0.008}
"""A training sequence: 4 s at 125 frames per second."""

SYNCHRONOUS: Mapping[str, Any] = {
    **dict.fromkeys(("delay_forward", "delay_backward", "delay_local"), 0.0),
    **dict.fromkeys(("tau_error", "tau_latent", "tau_interneuron", "tau_input"), 0.01),
}
"""A column whose populations all move at once: no delays, one time constant."""
ADDITIVE: Mapping[str, Any] = {"update": "additive"}
APART: Mapping[str, Any] = {**ADDITIVE, "segregated": True}
"""Errors from below and all of the own level meet in one network, or only in the sum of two."""
RANDOM_FEEDBACK: Mapping[str, Any] = {"feedback": "random"}
"""Errors that come down through matrices of their own, before and after training."""
WEAK_OUTPUT: Mapping[str, Any] = {"output_precision": 1 / 64, "learning_rate": 6.4}
"""An output of variance 64 beside hidden layers of 1; the rate makes good for its small errors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A column of the table."""

    label: str
    circuit: str
    """Catalog name or path of a file."""
    training: str = "natural"
    """"natural", "white_noise" or "none"; without effect on a circuit that does not learn."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields changed before training."""
    lesion: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields changed after training."""

    def __post_init__(self) -> None:
        check_choice(f"Variant {self.label}", "training", self.training, TRAININGS)

    @property
    def intact(self) -> Variant:
        """The same circuit, trained in the same way, before the lesion."""
        for one in ROSTER:
            if one == dataclasses.replace(self, label=one.label, lesion={}):
                return one
        return dataclasses.replace(self, label=f"{self.label} intact", lesion={})


ROSTER = (
    Variant(label="LN", circuit="linear_nonlinear"),
    Variant(label="DN", circuit="carandini_heeger_2012"),
    Variant(label="ADAPT", circuit="adaptation"),
    Variant(label="LCA", circuit="locally_competitive"),
    Variant(label="RB", circuit="rao_ballard_1999"),
    Variant(label="RB-cut", circuit="rao_ballard_1999", lesion={"feedback_gain": 0.0}),
    Variant(label="RB-noise", circuit="rao_ballard_1999", training="white_noise"),
    Variant(label="RB-untr", circuit="rao_ballard_1999", training="none"),
    Variant(label="RB-gauss", circuit="rao_ballard_1999", settings={"sparse": False}),
    Variant(label="RETINA", circuit="retina_srinivasan_1982"),
    Variant(label="LGN", circuit="lgn_dong_atick_1995"),
    Variant(label="JB", circuit="jehee_ballard_2009"),
    Variant(label="JB-cut", circuit="jehee_ballard_2009", lesion={"feedback_gain": 0.0}),
    Variant(label="BOGACZ", circuit="bogacz_2017"),
    Variant(label="PATH", circuit="visual_pathway"),
    Variant(label="PATH-cut", circuit="visual_pathway", lesion={"feedback_gain": 0.0}),
    Variant(label="PATH-untr", circuit="visual_pathway", training="none"),
    Variant(label="PATH-noise", circuit="visual_pathway", training="white_noise"),
    Variant(label="NMDA", circuit="pyramidal_nmda"),
    Variant(label="TWO-STAGE", circuit="poirazi_2003"),
    Variant(label="COLUMN", circuit="cortical_column"),
    Variant(label="COLUMN-cut", circuit="cortical_column", lesion={"feedback_gain": 0.0}),
    Variant(label="COLUMN-sync", circuit="cortical_column", lesion=SYNCHRONOUS),
    Variant(label="FF", circuit="feldman_friston_2010"),
    Variant(label="VM", circuit="attinger_2017"),
    Variant(label="VM-uncoupled", circuit="attinger_2017", settings={"coupled": False}),
    Variant(label="VM-gain", circuit="running_gain"),
    Variant(label="AUD", circuit="auditory_hierarchy"),
    Variant(label="AUD-adapt", circuit="auditory_hierarchy", lesion={"plasticity": 0.0}),
    Variant(label="AUD-one", circuit="auditory_hierarchy", lesion={"n_levels": 1}),
    Variant(label="AUD-cut", circuit="auditory_hierarchy", lesion={"feedback_gain": 0.0}),
    Variant(label="HOSOYA", circuit="hosoya_2005"),
    Variant(label="HOSOYA-fixed", circuit="hosoya_2005", lesion={"plasticity": 0.0}),
    Variant(label="OMS", circuit="olveczky_2003"),
    Variant(label="OMS-linear", circuit="olveczky_2003", lesion={"rectified": False}),
    Variant(label="SS", circuit="schwartz_simoncelli_2001"),
    Variant(label="ARF-policy", circuit="autoregressive_policy"),
    Variant(label="ARF-narrow", circuit="autoregressive_policy", settings={"taught": 0.4}),
    Variant(label="ARF-chain", circuit="autoregressive_policy", settings={"law": "latency"}),
    Variant(label="IID-policy", circuit="autoregressive_policy", settings={"n_taps": 0}),
    Variant(label="CHAIN", circuit="delay_chain"),
    Variant(label="PREDNET-s", circuit="prednet"),
    Variant(label="PREDNET-noE", circuit="prednet", settings={"head": True}),
    Variant(label="PREDNET-static", circuit="prednet", settings={"static": True}),
    Variant(label="PREDNET-untr", circuit="prednet", training="none"),
    Variant(label="PREDNET-cut", circuit="prednet", lesion={"feedback_gain": 0.0}),
    Variant(label="ARF", circuit="autoregressive_flow"),
    Variant(label="VAE-iter", circuit="variational_autoencoder"),
    Variant(label="VAE-dir", circuit="variational_autoencoder", settings={"inference": "direct"}),
    Variant(label="VAE-additive", circuit="variational_autoencoder", settings=ADDITIVE),
    Variant(label="VAE-apical", circuit="variational_autoencoder", settings=APART),
    Variant(label="PCN", circuit="whittington_bogacz_2017"),
    Variant(label="PCN-weak", circuit="whittington_bogacz_2017", settings=WEAK_OUTPUT),
    Variant(label="PCN-random", circuit="whittington_bogacz_2017", settings=RANDOM_FEEDBACK),
)


def variant(spec: str) -> Variant:
    """Return the column that a label, a circuit's name or a file's path stands for.

    Raises
    ------
    ValueError
        If it is none of them; the known ones are listed.

    Examples
    --------
    >>> variant("RB-cut").lesion, variant("rao_ballard_1999").label
    ({'feedback_gain': 0.0}, 'RB')
    """
    labels = {one.label: one for one in ROSTER}
    if spec in labels:
        return labels[spec]
    for one in ROSTER:
        if spec == one.circuit and one == one.intact and one.training == "natural":
            return one
    if Path(spec).suffix == ".py":
        if not Path(spec).is_file():
            found = f"no file {spec}"
            raise ValueError(refusal("variant", found, "a circuit's file", "Check the path."))
        return Variant(label=Path(spec).stem, circuit=str(Path(spec).resolve()))
    circuits = catalog.names("circuits")
    if spec in circuits:
        return Variant(label=spec, circuit=spec)
    raise unknown_name("variant", "model", spec, [*labels, *circuits])


def untrained(variant: Variant) -> Model:
    """Return the circuit with the variant's settings, before any training.

    Raises
    ------
    ValueError
        If a setting or a lesion names a field that the circuit does not have.
    """
    model = catalog.load("circuits", variant.circuit)
    known = [item.name for item in dataclasses.fields(model) if item.init]
    for name in (*variant.settings, *variant.lesion):
        if name not in known:
            raise unknown_name(f"variant {variant.label}", "parameter", name, known)
    return lesion(model, **variant.settings)  # type: ignore[no-any-return]


def train(variant: Variant, *, seed: int, scale: str = "quick") -> Model:
    """Train one replica of a column and lesion it.

    Parameters
    ----------
    variant
        The column.
    seed
        Seeds the initial parameters and the choice of the training stimuli.
    scale
        "quick" or "full": the number of training trials, from the model's `n_training`.

    Returns
    -------
    Model
        The trained model; a circuit that does not learn comes back as it is.
    """
    model: Any = untrained(variant)
    if isinstance(model, Learner):
        if variant.training == "none":
            model = _learner(model, "untrained")(seed=seed)
        else:
            stimulus = training_stimulus(model, variant.training, seed=seed, scale=scale)
            model = model.fit(stimulus, seed=seed)
    return lesion(model, **variant.lesion)  # type: ignore[no-any-return]


def training_stimulus(model: Model, kind: str, *, seed: int, scale: str = "quick") -> xr.DataArray:
    """Return what a learner is trained on: natural input, or white noise of the same variance.

    Natural input is patches of photographs, or 4 s of a simulated eye's view of them at 125 Hz.
    White noise has the mean and the pixel variance of the natural input that it stands in for, and
    is clipped to the range of luminance, 0 to 1. A learner whose curriculum is "own" says itself
    what either kind means for it.
    """
    from pcsim import stimuli

    check_choice("training_stimulus", "kind", kind, ("natural", "white_noise"))
    check_choice("training_stimulus", "scale", scale, SCALES)
    curriculum = _learner(model, "curriculum")
    check_choice("training_stimulus", "curriculum", curriculum, CURRICULA)
    if curriculum == "own":
        own: xr.DataArray = _learner(model, "training")(kind, seed=seed, scale=scale)
        return own
    shared: dict[str, Any] = {"n": int(_learner(model, "n_training")[scale]), "seed": seed}
    if model.px_per_deg is not None:
        shared["px_per_deg"] = model.px_per_deg
    if model.field_shape is None:
        found = f"{type(model).__name__} without field_shape"
        raise ValueError(refusal("training_stimulus", found, "a model that sees images"))
    natural: xr.DataArray
    if curriculum == "patches":
        natural = stimuli.natural_patches(model.field_shape, **shared)
    else:
        natural = stimuli.natural_sequences(model.field_shape, **MOVIE, **shared)
    if kind == "natural":
        return natural
    rng = np.random.default_rng([seed, 1])
    noise = rng.normal(float(natural.mean()), float(natural.std()), natural.shape)
    return natural.copy(data=np.clip(noise, 0.0, 1.0))


def _learner(model: Any, name: str) -> Any:
    """What the roster needs of a learner beyond `fit`."""
    try:
        return getattr(model, name)
    except AttributeError:
        where = type(model).__name__
        expected = "curriculum, n_training and untrained(*, seed) on a circuit with fit"
        raise ValueError(refusal(where, f"no {name}", expected, "Add it, or drop fit.")) from None


def save_model(model: Model, path: str | Path, source: str) -> None:
    """Save a model's fields as a folder: arrays in `arrays.npz`, the rest in `model.json`.

    Parameters
    ----------
    model
        A dataclass whose fields are None, numbers, text, arrays, or tuples and mappings of them.
    path
        The folder; it appears whole or not at all.
    source
        Catalog name or path of the circuit, from which `load_model` builds it again.

    Raises
    ------
    TypeError
        If a field is anything else.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    values = {name: _encode(name, value, arrays) for name, value in _changed(model, source).items()}
    with atomic_path(path) as part:
        part.mkdir()
        np.savez(part / "arrays.npz", **arrays)  # type: ignore[arg-type]
        write_json(part / "model.json", {"source": source, "type": _type(model), "fields": values})


def _changed(model: Model, source: str) -> dict[str, Any]:
    """Return the fields that differ from those of the circuit that `source` names."""
    if not dataclasses.is_dataclass(model):
        if isinstance(model, Learner):
            expected, advice = "a dataclass", "Keep what it learns in the fields of a dataclass."
            raise TypeError(refusal("save_model", f"a {_type(model)}", expected, advice))
        return {}
    base = catalog.load("circuits", source)
    values = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.init}
    return {k: v for k, v in values.items() if not _same(v, getattr(base, k, dataclasses.MISSING))}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return one is other
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _type(model: object) -> str:
    return type(model).__name__


def _encode(name: str, value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # Not every float is a JSON number: infinities are legal parameters.
        return {"float": value.hex()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        arrays[name] = value
        return {"array": name}
    if isinstance(value, tuple | list):
        items = [_encode(f"{name}.{i}", item, arrays) for i, item in enumerate(value)]
        return {type(value).__name__: items}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {k: _encode(f"{name}.{k}", v, arrays) for k, v in value.items()}}
    expected = "None, numbers, text, arrays, or tuples and mappings of them"
    advice = "Store what it is made of instead."
    raise TypeError(refusal("save_model", f"{name} of type {_type(value)}", expected, advice))


def load_model(path: str | Path) -> Model:
    """Load a model that `save_model` saved.

    Raises
    ------
    ValueError
        If the folder is damaged, or its circuit has changed its type or its fields since.
    """
    folder = Path(path)
    saved = read_json(folder / "model.json")
    where = f"load_model {folder.name}"
    advice = "Train it again."
    try:
        # An open file, because numpy leaves one open that turns out to be no archive.
        with (folder / "arrays.npz").open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        values = {name: _decode(value, arrays) for name, value in saved["fields"].items()}
        source, kind = saved["source"], saved["type"]
    except Exception as error:
        raise ValueError(refusal(where, f"a damaged model ({error})", "a whole one", advice)) from (
            error
        )
    model = catalog.load("circuits", source)
    if _type(model) != kind or not values.keys() <= {f.name for f in dataclasses.fields(model)}:
        found = f"a {kind} with fields {sorted(values)}"
        raise ValueError(refusal(where, found, f"those of {_type(model)} in {source}", advice))
    return dataclasses.replace(model, **values)  # type: ignore[no-any-return]


def _decode(value: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    if not isinstance(value, Mapping):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return float.fromhex(content)
    if kind == "array":
        return arrays[content]
    if kind == "mapping":
        return {name: _decode(item, arrays) for name, item in content.items()}
    items = [_decode(item, arrays) for item in content]
    return tuple(items) if kind == "tuple" else items
