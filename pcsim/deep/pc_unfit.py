"""What no module may do that becomes a predictive-coding network, found before or by its trace.

Inference computes every prediction many times, each from the activities alone and each example for
itself. So a module may not draw at random, tie examples together, or write over what is still read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from pcsim.deep.pc_network import is_in_place
from pcsim.messages import refusal

__all__ = ["refuse_drawn", "refuse_overwritten", "refuse_tied", "refuse_unfit"]

InstanceNorm = nn.modules.instancenorm._InstanceNorm
TIED = (nn.modules.batchnorm._BatchNorm,)
DROPPING = (nn.MultiheadAttention, nn.RNNBase)
"""Modules whose number `dropout` is a probability."""
DRAWS = {
    "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "gumbel_softmax",
    "log_normal_", "multinomial", "normal", "normal_", "poisson", "rand", "rand_like", "randint",
    "randint_like", "randn", "randn_like", "randperm", "random_", "uniform_",
}  # fmt: skip
TRAINS = {"batch_norm": (5, False), "rrelu": (3, False), "rrelu_": (3, False)}
"""Operation -> the place of its argument `training`, and what that is by default."""


def refuse_unfit(where: str, module: nn.Module) -> None:
    """Refuse layers that tie the examples of a batch together or draw at random."""
    refuse_tied(where, module)
    for name, part in module.named_modules():
        drops = isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
        drops = drops or (isinstance(part, DROPPING) and float(part.dropout) > 0)
        if drops or isinstance(part, nn.RReLU):
            raise drawn(where, f"{type(part).__name__} at {name!r}")
        if isinstance(part, InstanceNorm) and part.track_running_stats:
            found = f"{type(part).__name__} at {name!r}, whose running means change at every step"
            advice = "Make it with track_running_stats=False."
            raise ValueError(refusal(where, found, "layers that stay as they are", advice))
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            found, advice = f"{type(part).__name__} at {name!r}", "Embed first: hold what it gives."
            raise ValueError(refusal(where, found, "layers of floating numbers", advice))


def refuse_tied(where: str, module: nn.Module) -> None:
    """Refuse layers that tie the examples of a batch together."""
    for name, part in module.named_modules():
        if isinstance(part, TIED):
            raise tied(where, f"{type(part).__name__} at {name!r}")


def refuse_drawn(where: str, graph: fx.Graph, before: torch.Tensor) -> None:
    """Refuse operations that draw at random or tie examples together, by their names.

    `before` is the state of torch's generator before the trace: what is drawn without regard to the
    data leaves no operation but a constant. The state is put back.
    """
    for value in graph.nodes:
        name = str(getattr(value.target, "__name__", value.target))
        if value.op not in ("call_function", "call_method"):
            continue
        if name == "batch_norm" and trains(name, value):
            raise tied(where, f"{name!r} at {value.name!r}")
        drops = "dropout" in name and bool(asked(value, 1, "p", 0.5))
        drops = drops or name in ("rrelu", "rrelu_")
        attends = name == "scaled_dot_product_attention" and asked(value, 4, "dropout_p", 0.0)
        if name in DRAWS or attends or (drops and trains(name, value)):
            raise drawn(where, f"{name!r} at {value.name!r}")
    if not torch.equal(before, torch.get_rng_state()):
        torch.set_rng_state(before)
        raise drawn(where, "numbers drawn in `forward`")


def asked(value: fx.Node, place: int, name: str, default: Any) -> Any:
    """Return an argument by place or name."""
    return value.args[place] if len(value.args) > place else value.kwargs.get(name, default)


def trains(name: str, value: fx.Node) -> bool:
    """Return whether an operation is asked to do as in training."""
    place, default = TRAINS.get(name, (2, True))
    return bool(asked(value, place, "training", value.kwargs.get("train", default)))


def refuse_overwritten(where: str, module: nn.Module, graph: fx.Graph) -> None:
    """Refuse what is written over a value that is read elsewhere, or that nothing takes up."""
    for value in graph.nodes:
        if not writes(module, value):
            continue
        if not value.users:
            found = f"{value.name!r}, whose result nothing takes up"
            advice = "Write x = x.relu_(), or x = torch.relu(x), instead of x.relu_()."
            raise ValueError(refusal(where, found, "results that are passed on", advice))
        over = first(value)
        if over is not None and len(over.users) > 1:
            found = f"{value.name!r}, which writes over {over.name!r}, read elsewhere too"
            advice = "Write it without `inplace=True` or the underscore."
            raise ValueError(refusal(where, found, "values that stay as they are", advice))


def writes(module: nn.Module, value: fx.Node) -> bool:
    """Return whether an operation or a submodule writes over what it is given."""
    if value.op == "call_module":
        return bool(getattr(module.get_submodule(str(value.target)), "inplace", False))
    return is_in_place(value.op, value.target, value.kwargs)


def first(value: fx.Node) -> fx.Node | None:
    """Return the value that is an operation's first argument."""
    given: Iterable[Any] = (*value.args, *value.kwargs.values())
    return next((one for one in given if isinstance(one, fx.Node)), None)


def drawn(where: str, found: str) -> ValueError:
    """Return the error for predictions that change at every step."""
    words = f"{found}, whose predictions change at every step"
    return ValueError(refusal(where, words, "deterministic operations", "Remove it."))


def tied(where: str, found: str) -> ValueError:
    """Return the error for what ties examples together."""
    words = f"{found}, which ties the examples of a batch"
    advice = "Take nn.GroupNorm or nn.LayerNorm."
    return ValueError(refusal(where, words, "layers that treat examples alone", advice))
