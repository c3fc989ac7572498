"""Which layers compute what their class says, with weights of their own: what fast paths rest on.

A layer may be of a known class and still compute something else: a subclass with its own forward
pass, a hook, a weight that is made of other parameters at every call (weight_norm, pruning).
"""

from __future__ import annotations

from torch import nn

__all__ = ["own_parameters", "runs_as"]


def runs_as(part: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether the forward pass of a module is that of `kind`."""
    if not isinstance(part, kind) or "forward" in vars(part):
        return False
    passes = ("forward", "_conv_forward")  # a convolution's own pass runs through the second
    return all(getattr(type(part), name, None) is getattr(kind, name, None) for name in passes)


def own_parameters(layer: nn.Module) -> list[nn.Parameter] | None:
    """Return weight and, if it has one, bias; None where they are not the layer's own parameters.

    Nor are those whose gradients go through hooks. They are looked up anew at every call: either
    may have been replaced since the last.
    """
    own = layer._parameters
    weight = own.get("weight")
    if weight is None or "bias" not in own:
        return None
    bias = own["bias"]
    found = [weight] if bias is None else [weight, bias]
    return None if any(one._backward_hooks for one in found) else found
