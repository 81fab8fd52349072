"""The average of several fine-tuned networks' weights, as one network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from trainable.errors import UserError
from trainable.metrics import DIRECTIONS, is_better

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Member:
    """A network that may go into a soup: its name, its own score, its whole state dict, a copy that nothing else changes."""

    name: str
    score: float
    state: StateDict


@dataclass(frozen=True)
class Tasting:
    """A member that was tried: the score of the soup with it, and whether it stayed."""

    name: str
    score: float
    kept: bool


@dataclass(frozen=True)
class Soup:
    """The averaged state dict, its score, the names of what is in it, and every member in the order it was tried."""

    state: dict[str, Tensor]
    score: float
    members: tuple[str, ...]
    tastings: tuple[Tasting, ...]


def greedy_soup(members: Sequence[Member], *, score: Callable[[StateDict], float], metric: str) -> Soup:
    """Average the best member with each next best that makes the score no worse (greedy soup, Wortsman et al. 2022).

    ``score`` is the value of ``metric`` on validation images of a state; the soup's is never worse than what it says of the
    best member. Weights are averaged in float64, whole numbers and flags are the best member's. Where it has batch norms,
    ``score`` should begin with ``recompute_batch_norm``, and so should the soup's use. Raises UserError for no members
    and for members of different networks.
    """
    ordered = _best_first(members, metric=metric)
    _check_alike(ordered)
    best, *others = ordered
    total, kept = _floats(best.state), [best.name]
    state = dict(best.state)
    reached = score(state)
    tastings = [Tasting(best.name, reached, True)]
    for member in others:
        mixed = {name: value + member.state[name] for name, value in total.items()}
        candidate = _mean(mixed, count=len(kept) + 1, like=best.state)
        found = score(candidate)
        stays = found == reached or is_better(found, reached, metric=metric)
        tastings.append(Tasting(member.name, found, stays))
        if stays:
            total, state, reached = mixed, candidate, found
            kept.append(member.name)
    return Soup(state, reached, tuple(kept), tuple(tastings))


def _best_first(members: Sequence[Member], *, metric: str) -> list[Member]:
    """By own score; equals in the order given, and what is no number last."""
    if not members:
        raise UserError("soup: there is no network to average")
    sign = -1 if DIRECTIONS[metric] == "maximize" else 1
    return sorted(members, key=lambda member: (member.score != member.score, sign * member.score))


def _check_alike(members: Sequence[Member]) -> None:
    first = members[0]
    for member in members[1:]:
        for name in [*first.state, *member.state]:
            shapes = [_shape(one.state, name) for one in (first, member)]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"soup: {name} is {shapes[0]} in {first.name!r} and {shapes[1]} in {member.name!r}; "
                    "only networks of one architecture and one set of classes can be averaged"
                )


def _shape(state: StateDict, name: str) -> str:
    return "×".join(map(str, state[name].shape)) or "a number" if name in state else "missing"


def _floats(state: StateDict) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in state.items() if tensor.is_floating_point()}


def _mean(total: StateDict, *, count: int, like: StateDict) -> dict[str, Tensor]:
    """``total`` over ``count`` in the precision of ``like``, which gives what is no float."""
    return {name: (total[name] / count).to(tensor.dtype) if name in total else tensor for name, tensor in like.items()}
