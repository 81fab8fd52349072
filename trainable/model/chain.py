"""A backbone as a chain of links, so that what its first ones compute need be computed once only."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from trainable.config.trial import ModelConfig
from trainable.data.input_spec import InputSpec
from trainable.model.backbone import create_backbone
from trainable.model.layer_plan import LayerPlan

KEPT = 64  # chains of a process
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Link:
    """One piece of a backbone, from one tensor to the next; it holds names alone, and so fits every copy of the backbone.

    It ends behind the first ``units_done`` units; ``tensors`` are the parameters and buffers it computes with, ``work`` its
    share of the backbone's floating-point operations.
    """

    graph: fx.Graph
    units_done: int
    tensors: tuple[str, ...]
    work: float

    def module(self, backbone: nn.Module) -> nn.Module:
        """The link as a module of its own, which shares its layers with the backbone."""
        return fx.GraphModule(backbone, self.graph, class_name=type(backbone).__name__)


Chain = tuple[Link, ...]  # those of a backbone, from its images to its pooled features


def num_frozen_links(chain: Chain, *, frozen: frozenset[int]) -> int:
    """How many links from the first on have frozen units alone."""
    return sum(set(range(link.units_done)) <= frozen for link in chain)


@lru_cache(maxsize=KEPT)
def chain_of(config: ModelConfig, *, spec: InputSpec, flexible: bool) -> Chain:
    """The links of an architecture; empty where its code cannot be followed, which is said.

    It is made on torch's meta device, from shapes. Layers that are frozen as one, units and what lies in them, are called
    as they are; the code around them is followed once (torch.fx). A link ends wherever all that follows depends on one tensor
    of the images alone.
    """
    config = config.model_copy(update={"weights": "random"})
    backbone, plan = create_backbone(config, spec=spec, flexible=flexible, generator_seed=0, device="meta")
    images = torch.zeros(2, len(spec.mean), spec.size, spec.size, device="meta")
    try:
        return make_chain(backbone, plan=plan, images=images)
    except Exception as error:  # whatever the architecture's own code makes of a stand-in for its images
        logger.warning("%s cannot be cut behind its frozen layers, which are computed anew (%s)", config.name, error)
        return ()


def make_chain(backbone: nn.Module, *, plan: LayerPlan, images: Tensor) -> Chain:
    """The links of a backbone for ``images`` 2×C×S×S, on its device; raises what its code does where it cannot be followed."""
    graph = _followed(backbone, plan=plan)
    ends = _ends(graph, backbone=backbone, plan=plan, images=images)
    links = [_link(graph, start, end, backbone=backbone, done=done) for (start, _), (end, done) in pairwise(ends)]
    return _weighed(links, backbone=backbone, images=images)


def agrees(backbone: nn.Module, links: Sequence[nn.Module], images: Tensor) -> bool:
    """Whether the links, one after the other, compute what the backbone does."""
    outputs = images
    with torch.no_grad(), resting([backbone]):
        whole = backbone(images)
        for link in links:
            outputs = link(outputs)
    return torch.equal(whole, outputs)


@contextmanager
def resting(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, these modules are in eval mode; after it each of them, and of what is in them, in the mode it was in."""
    before = {inner: inner.training for module in modules for inner in module.modules()}
    for module in before:
        module.training = False
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


class _Follower(fx.Tracer):
    """Follows the code of modules that hold several units, and calls all others as they are."""

    def __init__(self, units: dict[str, set[int]]) -> None:
        super().__init__(autowrap_functions=(resample_abs_pos_embed,))
        self._units = units

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return len(self._units.get(module_qualified_name, ())) < 2


def _followed(backbone: nn.Module, *, plan: LayerPlan) -> fx.Graph:
    units = _units_inside(plan)
    graphs = [_Follower(units).trace(backbone.train(mode)) for mode in (True, False)]
    known = {name for name, _ in (*backbone.named_parameters(), *backbone.named_buffers())}
    if any(node.target not in known for graph in graphs for node in graph.find_nodes(op="get_attr")):
        raise ValueError("it computes with numbers that it makes on its way")
    if str(graphs[0]) != str(graphs[1]):
        raise ValueError("it computes otherwise in training")
    return _of_images_alone(graphs[1])


def _of_images_alone(graph: fx.Graph) -> fx.Graph:
    """Give all inputs but the first their defaults."""
    defaults = {node: node.args[0] if node.args else None for node in graph.find_nodes(op="placeholder")[1:]}
    for node in graph.nodes:
        node.args = fx.node.map_arg(node.args, lambda before: defaults.get(before, before))
        node.kwargs = fx.node.map_arg(node.kwargs, lambda before: defaults.get(before, before))
    for node in defaults:
        graph.erase_node(node)
    return graph


def _units_inside(plan: LayerPlan) -> dict[str, set[int]]:
    """The units that have parameters in a module, by its name; the backbone's is empty."""
    inside: dict[str, set[int]] = {}
    for name, unit in plan.unit_of().items():
        path = name.split(".")
        for length in range(len(path)):
            inside.setdefault(".".join(path[:length]), set()).add(unit)
    return inside


def _ends(graph: fx.Graph, *, backbone: nn.Module, plan: LayerPlan, images: Tensor) -> list[tuple[fx.Node, int]]:
    """Where a link may end, from the images on, with the units done there: the last place for each number of them."""
    outputs = _Recorder(backbone, graph)
    outputs.run(images)
    done = _units_done(graph, plan=plan)
    ends = {0: next(node for node in graph.nodes if node.op == "placeholder")}
    for node in _bottlenecks(graph):
        if node.op != "output" and done[node] and node in outputs.of_images:
            ends[done[node]] = node
    ordered: list[tuple[fx.Node, int]] = []
    position = {node: index for index, node in enumerate(graph.nodes)}
    for units, node in sorted(ends.items()):
        if not ordered or position[node] > position[ordered[-1][0]]:
            ordered.append((node, units))
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    if ordered[-1][0] is not result:
        raise ValueError("its output is not one tensor of features")
    return ordered


class _Recorder(fx.Interpreter):
    """Runs a graph; ``of_images`` are the nodes that give one floating-point tensor for the images."""

    def __init__(self, backbone: nn.Module, graph: fx.Graph) -> None:
        super().__init__(backbone, graph=graph)
        self.of_images: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1 and len(value) == 2:
            self.of_images.add(n)
        return value


def _units_done(graph: fx.Graph, *, plan: LayerPlan) -> dict[fx.Node, int]:
    """One more than the last unit that takes part in each node."""
    unit_of, units, done = plan.unit_of(), _units_inside(plan), dict[fx.Node, int]()
    for node in graph.nodes:
        own = units.get(str(node.target), set()) if node.op == "call_module" else set()
        if node.op == "get_attr" and node.target in unit_of:
            own = {unit_of[str(node.target)]}
        done[node] = max([0, *(unit + 1 for unit in own), *(done[before] for before in node.all_input_nodes)])
    return done


def _bottlenecks(graph: fx.Graph) -> Iterator[fx.Node]:
    """The nodes through which everything goes that depends on the images, in order."""
    position = {node: index for index, node in enumerate(graph.nodes)}
    of_images: set[fx.Node] = set()
    furthest = 0
    for node in graph.nodes:
        if node.op != "placeholder" and of_images.isdisjoint(node.all_input_nodes):
            continue
        of_images.add(node)
        if furthest <= position[node]:
            yield node
        furthest = max([furthest, *(position[user] for user in node.users)])


def _link(graph: fx.Graph, start: fx.Node, end: fx.Node, *, backbone: nn.Module, done: int) -> Link:
    needed, waiting = {start}, [end]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    part = fx.Graph()
    copies = {start: part.placeholder("outputs")}
    for node in graph.nodes:
        if node in needed and node is not start:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[end])
    held = {str(node.target) for node in part.nodes if node.op in ("call_module", "get_attr")}
    tensors = [*backbone.named_parameters(), *backbone.named_buffers()]
    names = tuple(name for name, _ in tensors if name in held or any(name.startswith(f"{module}.") for module in held))
    return Link(graph=part, units_done=done, tensors=names, work=0.0)


def _weighed(links: list[Link], *, backbone: nn.Module, images: Tensor) -> Chain:
    operations = []
    outputs = images
    for link in links:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            outputs = link.module(backbone)(outputs)
        operations.append(counter.get_total_flops())
    whole = max(1, sum(operations))
    return tuple(
        Link(graph=link.graph, units_done=link.units_done, tensors=link.tensors, work=count / whole)
        for link, count in zip(links, operations, strict=True)
    )
