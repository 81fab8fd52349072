"""What trials share on a machine: built where it is missing, with a look whether every trial can be built at all."""

import logging
from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch

from search.ledger.notes import DataFacts
from trainable.config.trial import TrialConfig
from trainable.data.pack import Pack, open_pack
from trainable.data.readers.sample import TARGET_SPLITS
from trainable.loader.rehearsal import open_old
from trainable.loader.unlabelled import FIELD, open_beside
from trainable.model.backbone import input_spec
from trainable.model.network import create_network
from trainable.training.device import pick_device
from trainable.training.fit import measure_epoch
from trainable.training.recipes import bit_hyperrule, from_scratch, source_only

logger = logging.getLogger(__name__)


def prepare(trials: list[dict[str, Any]], *, check_device: bool = True) -> DataFacts:
    """Build what trials share on this node, and try that each can be built at all.

    Gives the data's ``fingerprint``, ``classes``, ``counts`` by split and class, and ``bad_images``, those of the last trial's;
    and the ``fingerprints`` of all of theirs. Raises UserError for data, an architecture or weights that cannot be used,
    and with ``check_device`` for a device that this machine does not have.
    """
    facts = DataFacts()
    opened: dict[str, set[str]] = defaultdict(set)
    lines: dict[str, None] = {}
    for trial in trials:
        config = TrialConfig.model_validate(trial)
        if check_device:
            pick_device(config)
        spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
        pack = open_pack(config.data, spec)
        if config.data.early_size is not None:
            open_pack(config.data, replace(spec, size=config.data.early_size))
        opened["path"].add(pack.fingerprint)
        old = open_old(config.data, spec)
        if old is not None:
            opened["rehearsal"].add(old.fingerprint)
        beside = open_beside(config, spec, pack=pack)
        if beside is not None:
            opened[FIELD].add(beside.pack.fingerprint)
            lines[beside.line()] = None
        create_network(config, spec=spec, num_classes=len(pack.classes))
        facts = DataFacts(
            fingerprint=pack.fingerprint,
            classes=list(pack.classes),
            counts=pack.counts(),
            bad_images=list(pack.bad_images),
            report=_report(pack),
            oracle=config.data.oracle,
            target=None if config.data.target is None else _target_counts(pack),
        )
    for line in lines:
        logger.warning(line)
    return replace(facts, fingerprints={field: sorted(every) for field, every in opened.items()})


def recipe_config(trial: dict[str, Any], *, name: str | None) -> TrialConfig:
    """A trial as a fixed recipe has it; as it is where that is None."""
    config = TrialConfig.model_validate(trial)
    if name == "scratch":
        return from_scratch(config)
    if name == "source_only":
        return source_only(config)
    if name == "bit_hyperrule":
        facts = prepare([trial], check_device=False)
        return bit_hyperrule(config, num_images=sum(facts.counts["train"].values()))
    return config


def _report(pack: Pack) -> dict[str, Any]:
    """The report on the data without what comes of the target's labels, which is only told."""
    report = pack.report
    of_labels = [finding["line"] for finding in report.get("findings", []) if finding["kind"] == "partial_set"]
    for line in of_labels:
        logger.warning(line)
    kept = {
        "findings": [finding for finding in report.get("findings", []) if finding["line"] not in of_labels],
        "lines": [line for line in report.get("lines", []) if line.removeprefix("note: ") not in of_labels],
    }
    return report | kept if report else {}


def _target_counts(pack: Pack) -> dict[str, int]:
    """Count the target's images by split."""
    return {split: len(pack.indices(split)) for split in TARGET_SPLITS}


def measure(trial: dict[str, Any], *, threads: int) -> dict[str, float]:
    """What an epoch of a trial takes: seconds, bytes of a checkpoint, peak memory."""
    torch.set_num_threads(threads)
    measured = measure_epoch(TrialConfig.model_validate(trial))
    return {
        "epoch_seconds": measured.seconds,
        "frozen_seconds": measured.frozen_seconds,
        "views": float(measured.views),
        "checkpoint_bytes": float(measured.checkpoint_bytes),
        "peak_memory_bytes": float(measured.peak_memory_bytes),
    }
