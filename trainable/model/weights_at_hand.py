"""Which pretrained weights a model begins with, by whom licensed, told from the disk alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import torch
from blake3 import blake3
from huggingface_hub import try_to_load_from_cache
from timm.models import get_pretrained_cfg

from trainable.model.backbone import parameter_sizes
from trainable.model.weights import package_file
from trainable.model.weights_file import no_file

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # of which timm takes the first that a repository has
BYTES_OF_A_NUMBER = 4  # weights are published in float32
MEGABYTE = 1e6
# Licences that allow any use, with their name beside the work; what is in no table has terms to be read.
OPEN_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")
NOT_RECORDED = (None, "", "unknown")
NOT_COMMERCIAL = ("-nc-", "noncommercial")
UNGATED_OWNER = "timm/"  # whose repositories ask nobody to accept terms first


@dataclass(frozen=True, kw_only=True)
class WeightsAtHand:
    """The weights that a model begins with and where they are.

    ``kind`` is whether they lie in a `file` of the user's or of a `package`, in the `cache` of hub or torch, or are still to be
    got, `download`; ``place`` the file, or the repository or address they come from. ``num_bytes`` is the file's size, or about
    that of the download: four bytes a parameter. ``licence`` is what timm records of weights that are published by name.
    ``may_be_gated`` are those of a repository that may ask for its terms to be accepted: the hub alone knows.
    """

    model: str
    kind: Literal["file", "package", "cache", "download"]
    place: str
    num_bytes: int
    licence: str | None = None
    may_be_gated: bool = False

    def line(self) -> str:
        """One sentence for people."""
        size = f"{self.num_bytes / MEGABYTE:,.0f} MB" if self.num_bytes >= MEGABYTE else "under 1 MB"
        where = {
            "file": f"the file {self.place}, {size}",
            "package": f"installed, {size}",
            "cache": f"in the cache, {size}",
            "download": f"to be downloaded from {self._source()}, about {size}",
        }
        terms = "" if self.kind in ("file", "package") else f"; {licence_text(self.licence)}"
        gate = "; the hub may ask you to accept its terms first" if self.may_be_gated else ""
        return f"{self.model}: {where[self.kind]}{terms}{gate}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def _source(self) -> str:
        return "the hub" if self.place == f"{UNGATED_OWNER}{self.model}" else self.place


def weights_at_hand(name: str, *, weights: str) -> WeightsAtHand | None:
    """Where a timm model's ``model.weights`` are; None for random ones. Nothing is downloaded, and no hub is asked.

    Raises UserError for a package that is not installed.
    """
    if weights == "random":
        return None
    if weights == "pretrained":
        return _published(name)
    is_packaged = weights.startswith("package:")
    path = package_file(weights) if is_packaged else Path(weights)
    return WeightsAtHand(
        model=name,
        kind="package" if is_packaged else "file",
        place=weights if is_packaged else str(path),
        num_bytes=path.stat().st_size,
    )


def weights_identity(name: str, *, weights: str) -> str:
    """What tells a model's weights from others: of a file and of a package's its content, of timm's where they come from."""
    if weights == "random":
        return weights
    if weights == "pretrained":
        cfg = get_pretrained_cfg(name)
        return f"{cfg.architecture}.{cfg.tag} of {cfg.hf_hub_id or cfg.url}"
    path = package_file(weights) if weights.startswith("package:") else Path(weights)
    if not path.is_file():
        raise no_file(path)
    return str(blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest(length=16))


def download_line(places: Sequence[WeightsAtHand]) -> str | None:
    """What several downloads amount to; None for fewer than two."""
    sizes = [place.num_bytes for place in places if place.kind == "download"]
    if len(sizes) < 2:
        return None
    return f"{len(sizes)} of {len(places)} are to be downloaded, about {sum(sizes) / MEGABYTE:,.0f} MB in all"


def licence_text(licence: str | None) -> str:
    """What a licence means for whoever uses the weights, as far as its name tells."""
    if licence in NOT_RECORDED or licence is None:
        return "licence not recorded"
    if licence in OPEN_LICENCES:
        return f"licence {licence}"
    if any(part in licence for part in NOT_COMMERCIAL):
        return f"licence {licence}, not for commercial use"
    return f"licence {licence}, which has terms of its own: read them"


def _published(name: str) -> WeightsAtHand:
    cfg = get_pretrained_cfg(name)
    file = _cached(cfg)
    source = cfg.hf_hub_id or urlparse(cfg.url).netloc
    is_gated = file is None and bool(cfg.hf_hub_id) and not cfg.hf_hub_id.startswith(UNGATED_OWNER)
    return WeightsAtHand(
        model=f"{cfg.architecture}.{cfg.tag}" if cfg.tag else cfg.architecture,
        kind="download" if file is None else "cache",
        place=source if file is None else str(file),
        num_bytes=BYTES_OF_A_NUMBER * sum(parameter_sizes(name).values()) if file is None else file.stat().st_size,
        licence=cfg.license,
        may_be_gated=is_gated,
    )


def _cached(cfg: Any) -> Path | None:
    """The file that timm would take without asking: of the hub's cache, of torch's for weights that have an address only."""
    if cfg.hf_hub_id:
        repository, _, revision = cfg.hf_hub_id.partition("@")
        names = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES
        found = (try_to_load_from_cache(repository, name, revision=revision or None) for name in names)
        return next((Path(path) for path in found if isinstance(path, str)), None)
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(cfg.url).path).name
    return file if file.is_file() else None
