"""Old images shown again beside the new ones, so that a network does not forget them."""

import numpy as np
import torch
from numpy.typing import NDArray

from trainable.config.trial import DataConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack
from trainable.errors import UserError
from trainable.loader.joined import Joined
from trainable.randomness import generator

Rows = NDArray[np.int64]


def join_old(new: Pack, old: Pack) -> Joined:
    """Both packs as one, with the labels of the new one. Raises UserError for a class of old training images that it has not."""
    used = np.unique(old.labels[old.indices("train")])
    missing = [old.classes[label] for label in used if old.classes[label] not in new.classes]
    if missing:
        classes = ", ".join(new.classes)
        raise UserError(f"data.rehearsal: has the class {missing[0]!r}, which the data do not; there are {classes}")
    positions = np.array([new.classes.index(name) if name in new.classes else -1 for name in old.classes])
    return Joined(new, old, labels=positions[old.labels])


def open_old(config: DataConfig, spec: InputSpec) -> Pack | None:
    """The pack of ``data.rehearsal``, read as ``data.path`` is; None where there is none."""
    if config.rehearsal is None:
        return None
    of_one_domain: dict[str, object] = {"source": [], "target": None, "oracle": False}
    old_config = config.model_copy(update={"path": config.rehearsal, "rehearsal": None, **of_one_domain})
    old_config = old_config.model_copy(update={"format": "auto"}) if config.format == "elpv" else old_config
    return open_pack(old_config, spec, field="rehearsal")


def rehearsed(rows: Rows, *, old_rows: Rows, count: int, seed: int, epoch: int) -> Rows:
    """An epoch's rows with ``count`` of the old ones among them, others in each epoch, as a function of (seed, epoch)."""
    chosen = torch.randperm(len(old_rows), generator=generator(seed, "rehearsal", epoch)).numpy()[:count]
    together = np.concatenate([rows, old_rows[chosen]])
    order: Rows = torch.randperm(len(together), generator=generator(seed, "rehearsal order", epoch)).numpy()
    return together[order]


def rehearsal_count(config: DataConfig, *, num_new: int, num_old: int) -> int:
    """Old images of an epoch: ``data.rehearsal_share`` of the new ones, at most all there are."""
    return min(num_old, round(config.rehearsal_share * num_new))
