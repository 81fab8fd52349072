"""The average of several fine-tuned networks, from their checkpoints to one network that can be scored."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from trainable.atomic import write_beside
from trainable.config.techniques import METHODS
from trainable.config.trial import TrialConfig
from trainable.errors import UserError
from trainable.metrics import DIRECTIONS, is_better
from trainable.model.light_adapters import as_served, plain_state
from trainable.model.network import Network
from trainable.model.phase import STRATEGIES, Phase, phases
from trainable.statistics.scores import Evaluation
from trainable.training.checkpoint import load_scored, read_state
from trainable.training.measure import Measurer
from trainable.training.setup import Setup, prefixes_of, set_up

WEIGHTS = "soup.safetensors"
STATISTICS_IMAGES = 256  # over which batch-norm statistics are taken anew

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


@dataclass(frozen=True, kw_only=True)
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
        candidate_score = score(candidate)
        stays = candidate_score == reached or is_better(candidate_score, reached, metric=metric)
        tastings.append(Tasting(member.name, candidate_score, stays))
        if stays:
            total, state, reached = mixed, candidate, candidate_score
            kept.append(member.name)
    return Soup(state=state, score=reached, members=tuple(kept), tastings=tuple(tastings))


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
            shapes = [_shape(model.state, name) for model in (first, member)]
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


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """A trial that may go into a soup: its name, its configuration, the checkpoint and the value of its best epoch."""

    name: str
    config: TrialConfig
    checkpoint: Path
    value: float


def make_soup(ingredients: Sequence[Ingredient], *, path: Path) -> tuple[Soup, Evaluation, dict[str, float]]:
    """The greedy soup of trials of one architecture, its validation scores and all metrics; its weights go to ``path``.

    Data, numerics and batch size are those of the first ingredient, which should be the best; light adapters are taken into
    their layers first where they can be. Raises UserError for networks that cannot be averaged.
    """
    first = as_served(ingredients[0].config)
    setup = set_up(first)
    members = []
    for ingredient in ingredients:
        # Names of what has trained differ between configurations, so each loads through its own.
        ingredient_setup = set_up(ingredient.config)
        load_scored(ingredient.checkpoint, network=ingredient_setup.network, moved=ingredient_setup.moved)
        state = {name: tensor.clone() for name, tensor in plain_state(ingredient_setup.network).items()}
        members.append(Member(ingredient.name, ingredient.value, state))
    common = _common_phase(ingredients, setup=setup)
    setup.network.enter(common)
    measurer = Measurer(config=first, inputs=setup.inputs, prefixes=prefixes_of(setup), frozen_as=common)

    def score(state: StateDict) -> float:
        return _measure(measurer, setup.network, state)[1][first.train.metric]

    soup = greedy_soup(members, score=score, metric=first.train.metric)
    evaluation, measured = _measure(measurer, setup.network, soup.state)
    final = {name: tensor.cpu().contiguous() for name, tensor in setup.network.state_dict().items()}
    with write_beside(path) as file:
        file.write(save(final, metadata={"members": json.dumps(soup.members)}))
    return soup, evaluation, measured


def soup_group(config: dict[str, Any]) -> str:
    """Equal for configurations whose networks begin alike and so may be averaged: same weights, same head, same images."""
    model = {key: value for key, value in config["model"].items() if key not in ("dropout", "drop_path")}
    data = {key: value for key, value in config["data"].items() if key not in ("class_sampling", "cache", "workers")}
    from_scratch = not STRATEGIES[config["finetune"]["strategy"]].from_weights
    adapter = [config["adapt"][key] for key in ("method", "layer", "hidden")]
    parts = [model, data, from_scratch, adapter]
    if STRATEGIES[config["finetune"]["strategy"]].served:  # then what is averaged is in the same places and of one size
        parts += [
            config["freeze"]["depth"],
            *(config["finetune"][key] for key in ("strategy", "bottleneck", "prompts")),
        ]
    return json.dumps(parts, sort_keys=True)


def _measure(measurer: Measurer, network: Network, state: StateDict) -> tuple[Evaluation, dict[str, float]]:
    """Validation scores and all metrics of a state, its batch norms' statistics those of the first training images, unvaried."""
    config, last = measurer.config, measurer.config.train.epochs
    network.load_state_dict(dict(state))
    size = measurer.inputs.batch_size
    measurer.take_statistics(network, epoch=last, limit=size * max(1, STATISTICS_IMAGES // size))
    if METHODS[config.adapt.method].target_norms == "in training":
        measurer.take_target_statistics(network, epoch=last, every=False)
    return measurer.measure(network, epoch=last)


def _common_phase(ingredients: Sequence[Ingredient], *, setup: Setup) -> Phase:
    """What trained in any of the trials, so that norms frozen in all of them keep their statistics."""
    all_phases: list[Phase] = []
    for ingredient in ingredients:
        until = read_state(ingredient.checkpoint)["epoch"]
        all_phases += phases(ingredient.config, plan=setup.network.plan, until=until)
    frozen = frozenset.intersection(*(phase.frozen for phase in all_phases))
    moving = any(phase.moving_norms for phase in all_phases)
    still = all(phase.still_norms for phase in all_phases)
    return Phase(
        frozen=frozen,
        within=next((phase.within for phase in all_phases if phase.within != "nothing"), "nothing"),
        moving_norms=moving,
        still_norms=still,
        balanced=False,
        first=1,
        last=setup.config.train.epochs,
        new_head=False,
    )
