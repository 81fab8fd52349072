"""Features of every stage of a backbone, from one pass over the images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack
from trainable.errors import UserError, nearest
from trainable.loader.batches import evaluation_batches, normalise
from trainable.model.backbone import input_spec
from trainable.model.cut import is_cut
from trainable.model.light_adapters import without_adapters
from trainable.model.network import Network, create_network
from trainable.model.pool import pools_otherwise
from trainable.model.stages import stage_ends
from trainable.training.device import pick_device

POOLED = "pooled"  # the backbone's own output, what a head sees

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
Progress = Callable[[int, int], None]  # hears how many of how many images are done


@dataclass(frozen=True)
class Features:
    """What a frozen backbone makes of the training and the validation images.

    ``by_split`` has for `train` and `val` the features N×F by stage, in the split's canonical order, ``labels`` the
    labels N of each split, indices into ``classes``.
    """

    by_split: dict[str, dict[str, Array]]
    labels: dict[str, Labels]
    classes: tuple[str, ...]

    @property
    def stages(self) -> tuple[str, ...]:
        """The names under which there are features, from the input on; the last is `pooled`."""
        return tuple(self.by_split["train"])

    def of(self, stage: str, *, split: str) -> Array:
        """Features N×F of a stage; raises UserError where this backbone has no such stage."""
        if stage not in self.stages:
            stages = ", ".join(self.stages)
            raise UserError(f"stage: no features of {stage!r}, there are {stages}{nearest(stage, self.stages)}")
        return self.by_split[split][stage]


def frozen_features(config: TrialConfig, *, limit: int | None = None, progress: Progress | None = None) -> Features:
    """Features of every stage for the evaluation view of the training and validation images, before any training.

    With a ``limit`` at most so many images of each split are looked at, classes in proportion.
    Raises UserError for data or weights that cannot be used.
    """
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    network = create_network(without_adapters(config), spec=spec, num_classes=len(pack.classes)).to(pick_device(config))
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
    size = config.train.batch_size
    rows = {split: pack.indices(split) for split in ("train", "val")}
    if limit is not None:
        rows = {split: of_split[stratified(pack.labels[of_split], limit=limit)] for split, of_split in rows.items()}
    heard = progress and _adding_up(progress, total=sum(map(len, rows.values())))
    by_split = {
        split: stage_features(
            network, pack=pack, spec=spec, split=split, batch_size=size, rows=of_split, progress=heard
        )
        for split, of_split in rows.items()
    }
    return Features(by_split, {split: pack.labels[of_split] for split, of_split in rows.items()}, pack.classes)


def _adding_up(progress: Progress, *, total: int) -> Callable[[int], None]:
    """What is told of more and more images, as ``progress`` hears of it."""
    done = 0

    def hear(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    return hear


def stage_features(
    network: Network,
    *,
    pack: Pack,
    spec: InputSpec,
    split: str,
    batch_size: int,
    rows: Labels | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Array]:
    """Features N×F of a split, or of ``rows`` of it, in its canonical order, by `stage1`…`stage4` and `pooled`, from one pass.

    A stage's are the output of its last layers that timm shows, averaged over the image, without class tokens and
    without the norm behind the last stage; a stage at whose end timm shows nothing is left out. `pooled` are
    :meth:`Network.features`. Leaves the network in eval mode. ``progress`` hears of every batch how many images it had.
    """
    network.eval()
    device = next(network.parameters()).device
    compute = _features_by_stage(network)
    parts: list[dict[str, Tensor]] = []
    for batch in evaluation_batches(pack, split, spec=spec, batch_size=batch_size, rows=rows):
        with torch.inference_mode():
            features = compute(normalise(batch.images.to(device), spec))
            parts.append({stage: values.float().cpu() for stage, values in features.items()})
        if progress is not None:
            progress(len(batch.images))
    return {stage: torch.cat([part[stage] for part in parts]).numpy() for stage in parts[0]}


def stratified(labels: Labels, *, limit: int, seed: int = 0) -> Labels:
    """Rows, ascending, of at most ``limit`` images with the classes in proportion; the rarest have one if there is room."""
    generator = np.random.default_rng(seed)
    ranks = np.empty(len(labels))
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        ranks[rows] = np.arange(len(rows)) / len(rows)
    return np.sort(np.argsort(ranks, kind="stable")[:limit])


def _features_by_stage(network: Network) -> Callable[[Tensor], dict[str, Tensor]]:
    """A function of images N×C×S×S that gives the features N×F of every stage."""
    backbone = cast(Any, network.backbone)
    ends = stage_ends(backbone, plan=network.plan) if hasattr(backbone, "forward_intermediates") else {}
    if not ends:
        return lambda images: {POOLED: network.features(images)}

    def compute(images: Tensor) -> dict[str, Tensor]:
        indices = [end.index for end in ends.values()]
        if is_cut(backbone):
            maps = backbone.forward_intermediates(images, indices=indices, output_fmt="NCHW", intermediates_only=True)
        else:
            last, maps = backbone.forward_intermediates(images, indices=indices, output_fmt="NCHW")
        stages = {stage: values.mean(dim=(2, 3)) for stage, values in zip(ends, maps, strict=True)}
        if pools_otherwise(backbone):
            pooled = network.features(images)
        else:
            pooled = [*stages.values()][-1] if is_cut(backbone) else backbone.forward_head(last)
        return stages | {POOLED: pooled}

    return compute
