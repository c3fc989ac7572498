"""A part of a traced module as a function: the operations between activities and one prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import FunctionType
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional

from pcsim.messages import refusal

__all__ = ["Subgraph", "operation_name", "subgraph"]

map_arg: Any = fx.node.map_arg


@dataclass(frozen=True)
class Functional:
    """A function of `torch.nn.functional` that pickle cannot find by its own name."""

    __name__: str

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Return what the function returns."""
        return getattr(functional, self.__name__)(*arguments, **keywords)


def operation_name(target: object) -> str:
    """Return the name of an operation of torch or Python, "" for a function of one's own.

    Such a function may bear the name of another (`torch.fx.wrap`).
    """
    if isinstance(target, FunctionType) and not target.__module__.startswith("torch"):
        return ""
    return str(getattr(target, "__name__", target))


def findable(target: Any) -> Any:
    """Return a function, by name where it was made inside another one."""
    if "<locals>" in getattr(target, "__qualname__", ""):
        for name, one in vars(functional).items():
            if one is target:
                return Functional(name)
    return target


@dataclass(frozen=True)
class Operation:
    """One operation of a subgraph; arguments name earlier results as `Result`."""

    result: str
    kind: str
    target: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """The place of an earlier result among arguments."""

    name: str


@dataclass(frozen=True, eq=False)
class Subgraph:
    """The operations between some activities and one prediction, run one after another."""

    body: nn.Module
    parents: tuple[str, ...]
    operations: tuple[Operation, ...]

    def __call__(self, *activities: Tensor) -> Tensor:
        """Return the prediction."""
        known: dict[str, Any] = dict(zip(self.parents, activities, strict=True))
        value: Any = None
        for step in self.operations:
            arguments = fill(step.arguments, known)
            keywords = fill(step.keywords, known) if step.keywords else {}
            if step.kind == "call_module":
                value = self.body.get_submodule(step.target)(*arguments, **keywords)
            elif step.kind == "call_function":
                value = step.target(*arguments, **keywords)
            elif step.kind == "call_method":
                value = getattr(arguments[0], step.target)(*arguments[1:], **keywords)
            else:
                value = attrgetter(step.target)(self.body)
            known[step.result] = value
        if not isinstance(value, Tensor):
            raise TypeError(
                refusal("Subgraph", f"a {type(value).__name__}", "a tensor as activity")
            )
        return value

    def layers(self) -> list[nn.Module]:
        """Return the modules that take part, in order."""
        calls = [step for step in self.operations if step.kind == "call_module"]
        return [self.body.get_submodule(step.target) for step in calls]


def fill(value: Any, known: Mapping[str, Any]) -> Any:
    """Put results in their places, through tuples, lists, dictionaries and slices."""
    if isinstance(value, Result):
        return known[value.name]
    if isinstance(value, tuple):
        return tuple(fill(part, known) for part in value)
    if isinstance(value, list):
        return [fill(part, known) for part in value]
    if isinstance(value, dict):
        return {key: fill(part, known) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(fill(part, known) for part in (value.start, value.stop, value.step)))
    return value


def subgraph(
    module: nn.Module, value: fx.Node, cuts: Mapping[fx.Node, None]
) -> tuple[Subgraph, list[fx.Node]]:
    """Return what computes `value` from the nearest activities, and those activities."""
    parents: dict[fx.Node, None] = {}
    inner: dict[fx.Node, None] = {}

    # Depth first, without recursion, of which Python allows a thousand levels.
    open_ones = [(value, iter(value.all_input_nodes))]
    while open_ones:
        one, sources = open_ones[-1]
        for source in sources:
            if source in cuts:
                parents[source] = None
            elif source not in inner:
                open_ones.append((source, iter(source.all_input_nodes)))
                break
        else:
            open_ones.pop()
            inner[one] = None
    operations = tuple(
        Operation(
            one.name,
            one.op,
            findable(one.target),
            map_arg(tuple(one.args), lambda n: Result(n.name)),
            map_arg(dict(one.kwargs), lambda n: Result(n.name)),
        )
        for one in inner
    )
    return Subgraph(module, tuple(parent.name for parent in parents), operations), list(parents)
