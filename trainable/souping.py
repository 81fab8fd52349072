"""A soup of finished trials: from their checkpoints to one network that can be scored."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from trainable.checkpoint import load_scored, read_state
from trainable.config import TrialConfig
from trainable.data.writing import write_beside
from trainable.model.norms import recompute_batch_norm
from trainable.run import Run, start_run
from trainable.scores import Evaluation
from trainable.soup import Member, Soup, StateDict, greedy_soup
from trainable.strategy import Phase, phases

WEIGHTS = "soup.safetensors"
STATISTICS_IMAGES = 256  # over which batch-norm statistics are taken anew


@dataclass(frozen=True)
class Ingredient:
    """A trial that may go into a soup: its name, its configuration, the checkpoint and the value of its best epoch."""

    name: str
    config: TrialConfig
    checkpoint: Path
    value: float


def make_soup(ingredients: Sequence[Ingredient], *, path: Path) -> tuple[Soup, Evaluation, dict[str, float]]:
    """The greedy soup of trials of one architecture, its validation scores and all metrics; its weights go to ``path``.

    Data, numerics and batch size are those of the first ingredient, which should be the best. Raises UserError for networks
    that cannot be averaged.
    """
    first = ingredients[0].config
    run = start_run(first)
    run.epoch = first.train.epochs
    members = []
    for one in ingredients:
        # Names of what has trained differ between configurations, so each loads through its own.
        own = start_run(one.config)
        load_scored(one.checkpoint, network=own.network, moved=own.moved)
        state = {name: tensor.clone() for name, tensor in own.network.state_dict().items()}
        members.append(Member(one.name, one.value, state))
    run.network.enter(_common_phase(ingredients, run=run))

    def score(state: StateDict) -> float:
        return _measured(run, state)[1][first.train.metric]

    soup = greedy_soup(members, score=score, metric=first.train.metric)
    evaluation, measured = _measured(run, soup.state)
    final = {name: tensor.cpu().contiguous() for name, tensor in run.network.state_dict().items()}
    with write_beside(path) as file:
        file.write(save(final, metadata={"members": json.dumps(soup.members)}))
    return soup, evaluation, measured


def score_soup(config: TrialConfig, *, path: Path, split: str) -> Evaluation:
    """Scores on ``split`` of the soup at ``path`` of trials like ``config``."""
    run = start_run(config)
    run.epoch = config.train.epochs
    run.network.load_state_dict(load_file(path))
    return run.evaluate(split)


def soup_group(config: dict[str, Any]) -> str:
    """Equal for configurations whose networks begin alike and so may be averaged: same weights, same head, same images."""
    model = {key: value for key, value in config["model"].items() if key not in ("dropout", "drop_path")}
    data = {key: value for key, value in config["data"].items() if key not in ("sampler", "cache", "workers")}
    from_scratch = config["finetune"]["strategy"] == "scratch"
    adapter = [config["adapt"][key] for key in ("method", "layer", "hidden")]
    return json.dumps([model, data, from_scratch, adapter], sort_keys=True)


def _measured(run: Run, state: StateDict) -> tuple[Evaluation, dict[str, float]]:
    """Validation scores and all metrics of a state, its batch norms' statistics those of the first training images, unvaried."""
    run.network.load_state_dict(dict(state))
    batches = itertools.islice(run.batches("train"), max(1, STATISTICS_IMAGES // run.batch_size))
    recompute_batch_norm(run.network, (images for images, _ in batches))
    if run.config.adapt.method == "dsbn":
        run.take_target_statistics(run.network, every=False)
    return run.measure()


def _common_phase(ingredients: Sequence[Ingredient], *, run: Run) -> Phase:
    """What trained in any of the trials, so that norms frozen in all of them keep their statistics."""
    found: list[Phase] = []
    for one in ingredients:
        until = read_state(one.checkpoint)["epoch"]
        found += phases(one.config, plan=run.network.plan, until=until)
    frozen = frozenset.intersection(*(one.frozen for one in found))
    moving = any(one.moving_norms for one in found)
    still = all(one.still_norms for one in found)
    return Phase(frozen, "nothing", moving, still, False, 1, run.config.train.epochs, False)
