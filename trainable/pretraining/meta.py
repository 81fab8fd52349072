"""A start for few-shot learning: meta-training of a backbone over tasks drawn from a labelled data set."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from trainable.config.meta import MetaConfig
from trainable.config.trial import TrainConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack
from trainable.errors import UserError
from trainable.loader.batches import normalise
from trainable.loader.views import evaluation_view
from trainable.model.backbone import input_spec
from trainable.model.network import Network, create_network
from trainable.pretraining.resumable import (
    Standing,
    identity,
    restore_standing,
    save_standing,
    write_backbone,
)
from trainable.randomness import generator, seeded
from trainable.training.device import pick_device
from trainable.training.fit import DivergedError

Rows = NDArray[np.int64]
FastWeights = dict[str, Tensor]


@dataclass(frozen=True)
class MetaReport:
    """Where the training stands after ``update``.

    Metrics are means over the tasks since the last report: ``train/query_loss``, nats, and ``train/query_accuracy``,
    both on images and after adaptation to a task's others.
    """

    update: int
    metrics: dict[str, float]


class Task(NamedTuple):
    """Rows of a pack and their classes inside the task, 0 to ways-1; no row is in both parts."""

    support: Rows
    support_labels: Tensor
    queries: Rows
    query_labels: Tensor


class Part(NamedTuple):
    """Inputs N×… of what adapts (images, or for ANIL features) and labels N."""

    inputs: Tensor
    labels: Tensor


def meta_reports(config: MetaConfig, *, folder: Path) -> Iterator[MetaReport]:
    """Meta-train a backbone into ``folder/backbone.safetensors``, which ``model.weights`` loads.

    Tells every report that is still to come once its state is in ``folder``. Tasks are drawn from the train split alone. Norms
    use a task's own statistics; the running ones that are written are those of the last tasks. Goes on from the newest whole
    state in ``folder``, to the same weights as an unbroken run, bit for bit on a CPU. Raises UserError for data or weights that
    cannot be used, classes or images too few for a task, or where ``folder`` holds another training; DivergedError.
    """
    device = pick_device(TrialConfig(train=TrainConfig(device=config.device)))
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    rows_of = task_classes(pack, config=config)
    trial = TrialConfig(seed=config.seed, data=config.data, model=config.model)
    network = create_network(trial, spec=spec, num_classes=config.ways).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.outer_lr)
    of = identity(config, fingerprint=pack.fingerprint, but={"updates", "report_every"})  # a longer one may go on
    standing = restore_standing(folder, module=network, optimizer=optimizer, of=of)
    while standing.step < config.updates:
        end = min(standing.step + config.report_every, config.updates)
        scores = [
            _update(network, optimizer, pack=pack, rows_of=rows_of, spec=spec, config=config, number=number)
            for number in range(standing.step, end)
        ]
        loss, accuracy = torch.stack(scores).double().mean(dim=0).tolist()
        if not math.isfinite(loss):
            raise DivergedError(f"the loss became {loss} before update {end}")
        metrics = {"train/query_loss": loss, "train/query_accuracy": accuracy}
        standing = Standing(end, (*standing.history, metrics))
        save_standing(folder, standing, module=network, optimizer=optimizer, of=of)
        yield MetaReport(end, metrics)
    write_backbone(folder, network.backbone, spec=spec, of=of)


def task_classes(pack: Pack, *, config: MetaConfig) -> list[Rows]:
    """The training rows of every class that has enough of them for a task; UserError where those are too few."""
    rows, needed = pack.indices("train"), config.shots + config.queries
    by_class = [rows[pack.labels[rows] == label] for label in range(len(pack.classes))]
    classes = [of_class for of_class in by_class if len(of_class) >= needed]
    if len(classes) < config.ways:
        raise UserError(
            f"ways: {config.ways} classes with shots + queries = {needed} training images each are needed; {len(classes)} of "
            f"{len(by_class)} have them, the largest class has {max(map(len, by_class))}"
        )
    return classes


def draw_task(rows_of: list[Rows], *, ways: int, shots: int, queries: int, order: torch.Generator) -> Task:
    """A task of ``ways`` classes in any order, ``shots`` + ``queries`` different rows of each."""
    classes = torch.randperm(len(rows_of), generator=order)[:ways].tolist()
    drawn = np.stack(
        [rows_of[label][torch.randperm(len(rows_of[label]), generator=order)[: shots + queries]] for label in classes]
    )
    labels = torch.arange(ways)
    return Task(
        drawn[:, :shots].ravel(),
        labels.repeat_interleave(shots),
        drawn[:, shots:].ravel(),
        labels.repeat_interleave(queries),
    )


def adapt(module: nn.Module, support: Part, *, steps: int, lr: float, second_order: bool) -> FastWeights:
    """Weights of ``module`` after gradient steps on a task's cross-entropy; the module's own stay as they are.

    With ``second_order`` the result is differentiable with regard to the module's weights through every step;
    without, as if each step's gradient were a constant (first-order MAML).
    """
    fast: FastWeights = dict(module.named_parameters())
    for _ in range(steps):
        loss = cross_entropy(functional_call(module, fast, (support.inputs,)), support.labels)
        gradients = torch.autograd.grad(
            loss, list(fast.values()), create_graph=second_order, allow_unused=True, materialize_grads=True
        )
        fast = {name: weight - lr * gradient for (name, weight), gradient in zip(fast.items(), gradients, strict=True)}
    return fast


def _update(
    network: Network,
    optimizer: torch.optim.Optimizer,
    *,
    pack: Pack,
    rows_of: list[Rows],
    spec: InputSpec,
    config: MetaConfig,
    number: int,
) -> Tensor:
    """One update of the start; gives the mean query loss and accuracy of its tasks, 2 numbers."""
    device = next(network.parameters()).device
    optimizer.zero_grad(set_to_none=True)
    scores = []
    for index in range(config.tasks):
        order = generator(config.seed, "task", number, index)
        task = draw_task(rows_of, ways=config.ways, shots=config.shots, queries=config.queries, order=order)
        support = Part(_images(pack, task.support, spec, device), task.support_labels.to(device))
        query = Part(_images(pack, task.queries, spec, device), task.query_labels.to(device))
        with seeded(config.seed, "dropout", number, index, device=device):
            scores.append(learn(network, support, query, config=config))
    optimizer.step()
    return torch.stack(scores).mean(dim=0)


def learn(network: Network, support: Part, query: Part, *, config: MetaConfig) -> Tensor:
    """Add one task's share to the gradients of ``network``; gives query loss and accuracy after adaptation.

    The share is that of a mean over ``config.tasks``. Reptile's gradient is the way from the adapted weights back to
    the start, which makes its update a step towards them (Nichol et al. 2018, eq. 1 with Adam).
    """
    module: nn.Module = network
    if config.method == "anil":
        module = network.head
        support, query = (part._replace(inputs=network.features(part.inputs)) for part in (support, query))
    second_order = config.method != "reptile" and not config.first_order
    fast = adapt(module, support, steps=config.inner_steps, lr=config.inner_lr, second_order=second_order)
    with torch.set_grad_enabled(config.method != "reptile"):
        logits = functional_call(module, fast, (query.inputs,))
        loss = cross_entropy(logits, query.labels)
    if config.method == "reptile":
        _add_way_back(network, fast, share=1 / config.tasks)
    else:
        (loss / config.tasks).backward()  # type: ignore[no-untyped-call]
    accuracy = (logits.argmax(dim=1) == query.labels).float().mean()
    return torch.stack([loss.detach(), accuracy])


@torch.no_grad()
def _add_way_back(network: nn.Module, fast: Mapping[str, Tensor], *, share: float) -> None:
    for name, parameter in network.named_parameters():
        way = share * (parameter - fast[name])
        parameter.grad = way if parameter.grad is None else parameter.grad + way


def _images(pack: Pack, rows: Rows, spec: InputSpec, device: torch.device) -> Tensor:
    """Evaluation views of these rows, N×C×S×S, normalised."""
    images = torch.stack([evaluation_view(pack.image(row), spec) for row in rows])
    return normalise(images.to(device), spec)
