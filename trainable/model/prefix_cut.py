"""Cuts a backbone behind its frozen layers, so that what they compute need be computed once only."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainable.model.layer_plan import LayerPlan
from trainable.randomness import seeded

Shape = tuple[int, ...]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where a backbone is cut; it holds names alone and so fits every copy of the backbone, at this image size.

    ``entry`` is the module that the suffix begins with, empty where the prefix is the whole backbone. ``skipped`` are
    the modules done before it, with the shape of one image's output. ``tensors`` are the parameters and buffers that
    determine the prefix's output. The suffix gets that output with its axes in the ``order`` of its memory, as
    ``dtype``; ``shape`` is one image's in that order.
    """

    entry: str
    skipped: tuple[tuple[str, Shape], ...]
    tensors: tuple[str, ...]
    image_shape: Shape
    shape: Shape
    order: tuple[int, ...]
    dtype: torch.dtype


def find_cut(backbone: nn.Module, *, plan: LayerPlan, frozen: frozenset[int], images: Tensor) -> Cut | None:
    """The deepest cut within the leading frozen units; None where there are none, or none behind which one can cut.

    ``images``, three or more, are N×C×S×S and lie in memory as those the backbone will see; it is in the mode, and under
    the autocast, in which it will train. A cut is given only where, on a copy, the suffix of the prefix is the backbone to
    the bit, nothing else that was computed before the entry is used behind it, no parameter of the suffix takes part in
    the prefix, and the prefix draws no random number.
    """
    leading = next(index for index in range(len(plan.units) + 1) if index not in frozen)
    if not leading:
        return None
    with seeded(0, "cut", device=images.device):
        batches = [torch.randn_like(images[:count]) for count in (2, 3)]
    still = copy.deepcopy(backbone).eval()
    for cut in _candidates(still, plan=plan, leading=leading, images=batches[0]):
        if _is_exact(still, cut=cut, batches=batches) and _rests(backbone, cut=cut, images=batches[0]):
            return cut
    logger.warning("%s cannot be cut behind its frozen layers, they are computed anew", type(backbone).__name__)
    return None


def prefix_output(backbone: nn.Module, images: Tensor, *, cut: Cut) -> Tensor:
    """What the prefix makes of images N×C×S×S: N×``cut.shape``, float32; nothing behind it is computed.

    It holds every value of a narrower ``cut.dtype`` as it is.
    """
    output = _input_of(backbone, images, name=cut.entry) if cut.entry else backbone(images)
    return output.permute(cut.order).float().contiguous()


def from_prefix(backbone: nn.Module, stored: Tensor, *, cut: Cut) -> Tensor:
    """Pooled features N×F from what :func:`prefix_output` gave, N×``cut.shape``; it may be overwritten.

    Autograd, modes and random numbers are those of the whole backbone, as long as its prefix rests.
    """
    return _suffix_output(backbone, stored, cut=cut, fill=0.0)


def _input_of(backbone: nn.Module, images: Tensor, *, name: str) -> Tensor:
    reached: list[Tensor] = []

    def stop(_module: nn.Module, args: tuple[Any, ...]) -> None:
        reached.append(args[0])
        raise _ReachedError

    handle = backbone.get_submodule(name).register_forward_pre_hook(stop)
    try:
        backbone(images)
    except _ReachedError:
        return reached[0]
    finally:
        handle.remove()
    raise RuntimeError(f"the backbone does not come by {name}")


class _ReachedError(Exception):
    """The prefix is done."""


def _suffix_output(backbone: nn.Module, stored: Tensor, *, cut: Cut, fill: float) -> Tensor:
    """The backbone's own code, in which the skipped modules give ``fill`` at no cost and its entry gets what is stored."""
    output = stored.to(cut.dtype).permute(_inverse(cut.order))
    if not cut.entry:
        return output
    nothing = output.new_full((), fill)
    with ExitStack() as until_entry:

        def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            until_entry.close()
            return output, *args[1:]

        until_entry.callback(backbone.get_submodule(cut.entry).register_forward_pre_hook(enter).remove)
        for name, shape in cut.skipped:
            until_entry.callback(_stand_in(backbone.get_submodule(name), nothing.expand(len(output), *shape)))
        features: Tensor = backbone(nothing.expand(len(output), *cut.image_shape))
    return features


def _stand_in(module: nn.Module, output: Tensor) -> Callable[[], None]:
    """Let a module give ``output`` whatever it gets; the function given back undoes it."""
    original = {name: value for name, value in vars(module).items() if name == "forward"}
    vars(module)["forward"] = lambda *_args, **_kwargs: output

    def undo() -> None:
        del vars(module)["forward"]
        vars(module).update(original)

    return undo


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


class _Form(NamedTuple):
    shape: Shape
    order: tuple[int, ...]
    dtype: torch.dtype


@dataclass(kw_only=True)
class _Call:
    """One call of a module; ``within`` are the calls around it, ``taken`` and ``given`` its first input and its output."""

    name: str
    within: tuple[int, ...]
    taken: _Form | None
    given: _Form | None = field(default=None)


def _candidates(backbone: nn.Module, *, plan: LayerPlan, leading: int, images: Tensor) -> Iterator[Cut]:
    """A cut for every entry there is within the leading units, the deepest first."""
    calls, entries = _calls(backbone, images), set()
    units = _units_inside(plan)
    for number in range(leading, 0, -1):
        entry = _entry(calls, units=units, number=number) if number < len(plan.units) else calls[0]
        form = entry.given if entry is calls[0] else entry.taken if entry is not None else None
        if entry is None or form is None or entry.name in entries:
            continue
        entries.add(entry.name)
        yield Cut(
            entry=entry.name,
            skipped=_skipped(calls, before=entry) if entry.name else (),
            tensors=_tensors(backbone, plan=plan, units=units, number=number),
            image_shape=tuple(images.shape[1:]),
            shape=tuple(form.shape[axis] for axis in form.order[1:]),
            order=form.order,
            dtype=form.dtype,
        )


def _calls(backbone: nn.Module, images: Tensor) -> list[_Call]:
    """Every call of a module in the order in which they start, the backbone's own first."""
    calls: list[_Call] = []
    running: list[int] = []

    def starting(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def start(_module: nn.Module, args: tuple[Any, ...]) -> None:
            calls.append(
                _Call(name=name, within=tuple(running), taken=_form(args[0] if args else None, num_images=len(images)))
            )
            running.append(len(calls) - 1)

        return start

    def finish(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        calls[running.pop()].given = _form(output, num_images=len(images))

    with ExitStack() as hooks, torch.no_grad():
        for name, module in backbone.named_modules():
            hooks.callback(module.register_forward_pre_hook(starting(name)).remove)
            hooks.callback(module.register_forward_hook(finish).remove)
        backbone(images)
    return calls


def _form(value: Any, *, num_images: int) -> _Form | None:
    """How a tensor of N images lies in memory; None for all else."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape[:1] != (num_images,):
        return None
    strides = value.stride()
    by_stride = sorted(range(value.dim()), key=lambda axis: -strides[axis])
    order = by_stride if by_stride[0] == 0 else range(value.dim())
    return _Form(tuple(value.shape), tuple(order), value.dtype)


def _units_inside(plan: LayerPlan) -> dict[str, set[int]]:
    """The units that have parameters in a module, by its name; the backbone's is empty."""
    inside: dict[str, set[int]] = {}
    for name, unit in plan.unit_of().items():
        path = name.split(".")
        for length in range(len(path)):
            inside.setdefault(".".join(path[:length]), set()).add(unit)
    return inside


def _entry(calls: Sequence[_Call], *, units: dict[str, set[int]], number: int) -> _Call | None:
    """The first call of a module whose parameters all lie behind the first ``number`` units."""
    return next((call for call in calls if min(units.get(call.name, {-1})) >= number), None)


def _skipped(calls: Sequence[_Call], *, before: _Call) -> tuple[tuple[str, Shape], ...]:
    """The outermost modules that were done before a call with one tensor for the images; the others are run again."""
    position = next(index for index, call in enumerate(calls) if call is before)
    chosen: dict[int, _Form] = {}
    for index, call in enumerate(calls[:position]):
        if call.given is not None and index not in before.within and not chosen.keys() & set(call.within):
            chosen[index] = call.given
    return tuple({calls[index].name: form.shape[1:] for index, form in chosen.items()}.items())


def _tensors(backbone: nn.Module, *, plan: LayerPlan, units: dict[str, set[int]], number: int) -> tuple[str, ...]:
    """Parameters of the first ``number`` units, buffers of the modules that have parameters of theirs."""
    unit_of = plan.unit_of()
    parameters = [name for name, _ in backbone.named_parameters() if unit_of[name] < number]
    buffers = [name for name, _ in backbone.named_buffers() if min(_units_around(name, units=units)) < number]
    return tuple(parameters + buffers)


def _units_around(name: str, *, units: dict[str, set[int]]) -> set[int]:
    """The units of the innermost module around a buffer that has parameters."""
    path = name.rpartition(".")[0]
    while path not in units:
        path = path.rpartition(".")[0]
    return units[path]


def _is_exact(backbone: nn.Module, *, cut: Cut, batches: Sequence[Tensor]) -> bool:
    """Whether nothing but the stored output gets from the prefix to the suffix, and nothing from the suffix into it."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name not in cut.tensors)
    with torch.enable_grad():
        # All prefixes before the first suffix: what a module has kept on itself is then another batch's.
        stored = [prefix_output(backbone, images, cut=cut) for images in batches]
    if any(output.requires_grad for output in stored):
        return False
    with torch.no_grad():
        return all(
            _equals_whole(backbone, images, stored=output, cut=cut, fill=fill)
            for images, output, fill in zip(batches, stored, (0.0, float("nan")), strict=True)
        )


def _equals_whole(backbone: nn.Module, images: Tensor, *, stored: Tensor, cut: Cut, fill: float) -> bool:
    """Whether the features are those of the whole backbone; ``fill`` not a number shows every other way in."""
    try:
        features = _suffix_output(backbone, stored.clone(), cut=cut, fill=fill)
    except Exception:  # whatever the backbone's own code makes of a stand-in
        return False
    return torch.equal(features, backbone(images))


def _rests(backbone: nn.Module, *, cut: Cut, images: Tensor) -> bool:
    """Whether the prefix computes in the backbone's present mode what it computes in eval mode, drawing nothing."""
    present = copy.deepcopy(backbone)
    with torch.no_grad(), seeded(0, "cut", device=images.device):
        before = _random_state(images.device)
        output = prefix_output(present, images, cut=cut)
        drew = not torch.equal(_random_state(images.device), before)
    with torch.no_grad():
        return not drew and torch.equal(output, prefix_output(present.eval(), images, cut=cut))


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
