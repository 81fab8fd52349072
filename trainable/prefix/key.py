"""The names of what is kept: everything that determines the outputs of a prefix for some images."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata

import torch
from blake3 import blake3
from torch import nn

from trainable.config.trial import AugmentConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack
from trainable.loader.batches import Rows
from trainable.model.chain import Chain
from trainable.model.norms import OF_TARGET
from trainable.model.precision import used_amp
from trainable.prefix.outputs import fill_size

VERSION = 4  # of everything between the pack and the kept bytes
UNSEEN = {"mixup", "cutmix", "mix_probability", "mix_until", "views"}  # what a view of one image knows nothing of


@dataclass(frozen=True)
class View:
    """How training varies the images; the program of ``augment.custom`` is not told from another."""

    augment: AugmentConfig
    seed: int
    number: int


def image_key(pack: Pack, rows: Rows, *, spec: InputSpec, view: View | None) -> list[object]:
    """What determines the pixels of these rows as they are shown; no ``view`` is the evaluation view."""
    varied = view and [view.augment.model_dump(exclude=UNSEEN), view.seed, view.number]
    return [pack.path.stem, blake3(rows.astype("<i8").tobytes()).hexdigest(length=16), asdict(spec), varied]


def level_names(
    digests: Iterable[str], *, config: TrialConfig, device: torch.device, images: list[object]
) -> list[str]:
    """For each of the first links, by their digests, the name of what the prefix up to its end makes of the images."""
    shared = json.dumps(
        [VERSION, config.model.name, config.data.prefix_dtype, numerics(device, config=config), images], sort_keys=True
    )
    return [str(blake3((shared + digest).encode()).hexdigest(length=16)) for digest in digests]


def prefix_digests(backbone: nn.Module, chain: Chain, *, links: int) -> Iterator[str]:
    """For each of the first ``links`` a digest of all tensors up to its end, but the statistics of a domain not looked at."""
    tensors = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    digest = blake3()
    for link in chain[:links]:
        digest.update(str(link.graph).encode())
        for name in link.tensors:
            if name.rpartition(".")[2] in OF_TARGET.values():
                continue
            values = tensors[name].detach().cpu().contiguous()
            digest.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
        yield str(digest.hexdigest(length=16))


def numerics(device: torch.device, *, config: TrialConfig) -> dict[str, object]:
    """What the last bits of an output depend on besides the weights."""
    processor: list[object] = [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    if device.type == "cuda":
        processor = [torch.cuda.get_device_name(device), torch.version.cuda, torch.backends.cudnn.version()]  # type: ignore[no-untyped-call]
        processor += [torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]
    return {
        "processor": processor,
        "amp": used_amp(config.train.amp, device),
        "fill_size": fill_size(device),
        "channels_last": config.train.channels_last,
        **_versions(),
    }


@cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "torchvision", "timm")}
