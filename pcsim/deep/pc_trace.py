"""Turn a torch module into a predictive-coding network: cut its graph where activities live."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter

import torch
from torch import Tensor, fx, nn

from pcsim.deep.pc_energy import Energy, SquaredError
from pcsim.deep.pc_network import Node, PCNetwork, Prior
from pcsim.deep.pc_subgraph import operation_name, subgraph
from pcsim.deep.pc_unfit import refuse_drawn, refuse_overwritten, refuse_unfit
from pcsim.messages import check_choice, check_object, refusal, unknown_name

__all__ = ["predictive_coding"]

CUTS = ("after_activation", "before_activation")
WEIGHTED = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd)
ATTENDING = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
SHAPES = {
    "dim", "dtype", "device", "empty_like", "full_like", "is_cuda", "ndim", "ndimension",
    "new_empty", "new_full", "new_ones", "new_zeros", "numel", "ones_like", "requires_grad",
    "shape", "size", "stride", "zeros_like",
}  # fmt: skip
"""What depends on how a tensor is laid out, not on its numbers: functions, methods, attributes."""
SHAPED = {"expand_as", "reshape_as", "to", "type_as", "view_as"}
"""Methods of which the first argument alone gives numbers."""


def predictive_coding(
    module: nn.Module,
    *,
    cut: str | Sequence[str] = "after_activation",
    energies: Mapping[str, Energy] | None = None,
    output: Energy | None = None,
    priors: Mapping[str, Tensor | Prior] | None = None,
) -> PCNetwork:
    """Return the predictive-coding network of a module; its parameters are shared, not copied.

    The module is traced symbolically, so its `forward` may contain residual links, branches and any
    operation on tensors, but no decision that depends on the data. Its feedforward pass stays what
    it was: `predictive_coding(module)(x)` equals `module(x)`, or what is expected there: under a
    cross-entropy, whose predictions are logits, the probabilities. Numbers and flags that `forward`
    reads from the module (`self.k`, ``training=self.training``) stay as they are now.

    Parameters
    ----------
    module
        A `nn.Sequential` or any module that `torch.fx` can trace.
    cut
        Where activities live. ``"after_activation"``: what enters a layer with weights, so that the
        prediction is g(W z + b). ``"before_activation"``: what leaves one (after a residual sum),
        so that the prediction is W g(z) + b. Layers are linear, bilinear and convolutional ones,
        for the first rule also `torch.nn`'s attention and transformer layers; recurrent ones and
        weights that `forward` uses by itself are not: name values there. What is computed from
        inputs without parameters is never cut, and is held where they are. Or the names of the
        values to cut at, as in ``torch.fx``: of submodules, or of the traced values. The outputs
        are always cut.
    energies
        Node -> energy, where it is not the plain squared error.
    output
        Energy of the output, as a shorthand for ``energies={"output": ...}``.
    priors
        Input -> the mean of its prior, of the shape of one example, or a `Prior` that learns it;
        its precision is that of its energy. Such an input is a node, which may be free: with priors
        on all inputs a decoder is a generative network, and learns from outputs alone.

    Returns
    -------
    PCNetwork
        With inputs named as the arguments of `forward` that have no default (the others keep
        theirs), those with a prior left out, and the output named ``"output"``; several, a
        dictionary's too, are a tuple, ``"output_0"`` and so on.

    Raises
    ------
    ValueError
        If the module cannot be traced, draws at random (dropout), ties examples together (batch
        normalization) or writes over a value that is read elsewhere.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> predictive_coding(net).names
    ('input', '_1', 'output')
    >>> predictive_coding(net, cut="before_activation").names
    ('input', '_0', 'output')
    >>> predictive_coding(net, priors={"input": torch.zeros(4)}).inputs
    ()
    """
    where = "predictive_coding"
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        found = f"a module of type {type(module).__name__}"
        raise TypeError(refusal(where, found, "a torch.nn.Module in Python"))
    refuse_unfit(where, module)
    before = torch.get_rng_state()
    graph = trace(where, module)
    refuse_drawn(where, graph, before)
    refuse_overwritten(where, module, graph)
    outputs = output_values(graph)
    chosen = cut_values(where, module, graph, cut) | dict.fromkeys(outputs)
    called = {v: str(v.target) if v.op == "placeholder" else v.name for v in graph.nodes}
    for number, value in enumerate(outputs):
        if value.op == "placeholder":
            continue  # an input that is handed on keeps its name
        called[value] = "output" if len(outputs) == 1 else f"output_{number}"
    own = dict(energies or {})
    if output is not None:
        twice = {called[value] for value in outputs} & set(own)
        if twice:
            found = f"energies for {sorted(twice)} and `output`"
            raise ValueError(refusal(where, found, "one of them", "Leave one out."))
        own.update({called[v]: output for v in outputs if v.op != "placeholder"})
    for name, given in own.items():
        kind = "an energy, such as CrossEntropy()"
        check_object(where, f"energy of {name!r}", given, "weighted_error", kind)
    inputs = [called[value] for value in graph.nodes if value.op == "placeholder"]
    nodes = roots(where, inputs, priors or {}, own)
    rooted = {node.name for node in nodes}
    for value in graph.nodes:
        if value in chosen and value.op != "placeholder":
            piece, parents = subgraph(module, value, chosen)
            energy = own.pop(called[value], None) or SquaredError()
            nodes.append(Node(called[value], tuple(called[p] for p in parents), piece, energy))
    if own:
        raise unknown_name(where, "node", next(iter(own)), [node.name for node in nodes])
    kept = [name for name in inputs if name not in rooted]
    return PCNetwork(kept, nodes, body=module, outputs=[called[value] for value in outputs])


def roots(
    where: str,
    inputs: Sequence[str],
    priors: Mapping[str, Tensor | Prior],
    energies: dict[str, Energy],
) -> list[Node]:
    """Return a node for each input with a prior; its energy is taken out of `energies`."""
    for name, mean in priors.items():
        if name not in inputs:
            raise unknown_name(where, "input", name, inputs)
        if not isinstance(mean, Tensor | Prior):
            found, expected = f"a prior of type {type(mean).__name__}", "a tensor, or a Prior"
            raise TypeError(refusal(where, f"{found} for {name!r}", expected))
    return [
        Node(
            name, (), one if isinstance(one, Prior) else Prior(one),
            energies.pop(name, SquaredError()),
        )
        for name, one in priors.items()
    ]  # fmt: skip


class Tracer(fx.Tracer):
    """Traces buffers as values that are read, as parameters are, not as constants of the trace."""

    proxy_buffer_attributes = True


def trace(where: str, module: nn.Module) -> fx.Graph:
    """Return the graph of a module's forward pass."""
    given = inspect.signature(module.forward).parameters.values()
    fixed = {p.name: p.default for p in given if p.default is not inspect.Parameter.empty}
    names = {p.name for p in given} - set(fixed)
    buffers = {name: (part, dict(part._buffers)) for name, part in module.named_modules()}
    try:
        graph = Tracer().trace(module, concrete_args=fixed or None)
    except (fx.proxy.TraceError, TypeError, NameError, RuntimeError) as error:
        found = f"{type(module).__name__}, which torch.fx cannot trace ({error})"
        advice = "Describe the graph yourself: PCNetwork(inputs, nodes)."
        raise ValueError(
            refusal(where, found, "a module without branches on data", advice)
        ) from None
    finally:
        written = restored(buffers)
    if written:
        found = f"{type(module).__name__}, which writes to its buffers {written} in `forward`"
        advice = "Inference predicts many times: keep counts and running means out of `forward`."
        raise ValueError(refusal(where, found, "a module that stays as it is", advice))
    if fixed:
        drop_inputs(graph, names)
    return graph


def restored(buffers: Mapping[str, tuple[nn.Module, dict[str, Tensor | None]]]) -> list[str]:
    """Give modules back the buffers they had; return the names of those that were others."""
    written = []
    for name, (part, before) in buffers.items():
        for key, value in before.items():
            if part._buffers.get(key) is not value:
                written.append(f"{name}.{key}".lstrip("."))
                part._buffers[key] = value
    return written


def drop_inputs(graph: fx.Graph, names: Collection[str]) -> None:
    """Take out all inputs but those named: arguments at their defaults, and what checks them."""
    gone: dict[fx.Node, None] = {}
    for value in graph.nodes:
        if value.op == "placeholder":
            lost = str(value.target).lstrip("*") not in names
        else:
            lost = any(source in gone for source in value.all_input_nodes)
        if lost:
            gone[value] = None
    for value in reversed(gone):
        graph.erase_node(value)


def output_values(graph: fx.Graph) -> list[fx.Node]:
    """Return the values that the module returns, each once."""
    found: dict[fx.Node, None] = {}
    for value in graph.nodes:
        if value.op == "output":
            found.update(dict.fromkeys(value.all_input_nodes))
    return list(found)


def cut_values(
    where: str, module: nn.Module, graph: fx.Graph, cut: str | Sequence[str]
) -> dict[fx.Node, None]:
    """Return the values that become activities."""
    inputs = {value: None for value in graph.nodes if value.op == "placeholder"}
    if not isinstance(cut, str):
        return inputs | named_values(where, graph, cut)
    rule = check_choice(where, "cut", cut, CUTS)
    kinds = (*WEIGHTED, *ATTENDING) if rule == "after_activation" else WEIGHTED
    layers = [
        value
        for value in graph.nodes
        if value.op == "call_module" and isinstance(module.get_submodule(value.target), kinds)
    ]
    if rule == "after_activation":
        sources = [source for layer in layers for source in layer.all_input_nodes]
        wanted = reached(graph) & parameterised(module, graph)
        return inputs | {source: None for source in sources if source in wanted}
    return inputs | {after_sums(layer): None for layer in layers}


def reached(graph: fx.Graph) -> set[fx.Node]:
    """Return the values that depend on an input's numbers; others are alike for all examples."""
    found: set[fx.Node] = set()
    for value in graph.nodes:
        if value.op == "placeholder" or found & set(numbers_of(value)):
            found.add(value)
    return found


def numbers_of(value: fx.Node) -> list[fx.Node]:
    """Return the values whose numbers, not only whose shapes, a value is computed from."""
    name = operation_name(value.target)
    if name == "getattr" and len(value.args) > 1:
        name = str(value.args[1])
    if value.op in ("call_function", "call_method") and name in SHAPES:
        return []
    if value.op == "call_method" and name in SHAPED:
        return [one for one in value.args[:1] if isinstance(one, fx.Node)]
    return value.all_input_nodes


def parameterised(module: nn.Module, graph: fx.Graph) -> set[fx.Node]:
    """Return the values that depend on a parameter."""
    found: set[fx.Node] = set()
    for value in graph.nodes:
        own = False
        if value.op == "call_module":
            own = any(True for _ in module.get_submodule(value.target).parameters())
        elif value.op == "get_attr":
            own = isinstance(attrgetter(value.target)(module), nn.Parameter)
        if own or found & set(numbers_of(value)):
            found.add(value)
    return found


def after_sums(value: fx.Node) -> fx.Node:
    """Follow a value into the residual sum that alone uses it."""
    while len(value.users) == 1:
        (user,) = value.users
        if not is_sum(user):
            break
        value = user
    return value


def is_sum(value: fx.Node) -> bool:
    """Return whether a value is the sum of two others."""
    name = operation_name(value.target)
    return name in ("add", "iadd", "add_") and len(value.all_input_nodes) > 1


def named_values(where: str, graph: fx.Graph, names: Sequence[str]) -> dict[fx.Node, None]:
    """Return the values of these names: of submodules (at their last call) or of the trace."""
    known: dict[str, fx.Node] = {}
    for value in graph.nodes:
        if value.op == "call_module":
            known[str(value.target)] = value
        if value.op != "output":
            known[str(value.target) if value.op == "placeholder" else value.name] = value
    for name in names:
        if name not in known:
            raise unknown_name(where, "cut", name, known)
    return {known[name]: None for name in names}
