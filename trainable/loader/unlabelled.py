"""Images without labels beside the labelled ones, which teachers answer for."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainable.config.trial import TrialConfig
from trainable.data.image_guard import check_held
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_unlabelled
from trainable.errors import SettingsError, UserError
from trainable.randomness import generator

FIELD = "distill.unlabelled"
Rows = NDArray[np.int64]
# What only labelled images have, or what is asked of them; an image here has no split and no class.
OF_LABELLED: dict[str, object] = {
    "source": [],
    "target": None,
    "oracle": False,
    "rehearsal": None,
    "keep_splits": None,
    "group_column": None,
    "min_images": 1,
    "rare": "error",
    "duplicates": "warn",
}
FEWEST = 3  # of which a pack is made, since it has splits, which mean nothing here


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """The ``rows`` of a ``pack`` that train, at a ``share`` of each batch; ``num_known`` others are among the data already."""

    pack: Pack
    rows: Rows
    num_known: int
    share: float

    def count(self, num_labelled: int) -> int:
        """How many an epoch with so many labelled images shows."""
        return max(1, round(num_labelled * self.share / (1 - self.share)))

    def line(self) -> str:
        """What is done with them, for people."""
        known = f"; {self.num_known} more left out, the data have them already" if self.num_known else ""
        return f"{FIELD}: {len(self.rows)} images are learnt from teachers alone, {self.share:.0%} of each batch{known}"


def open_beside(config: TrialConfig, spec: InputSpec, *, pack: Pack) -> Unlabelled | None:
    """The images of ``distill.unlabelled`` beside those of ``pack``, each content once; None where there are none.

    An image that ``pack`` has, in whatever split, is left out: it has a label, or it judges. Raises UserError where none is left.
    """
    distill = config.distill
    if distill.unlabelled is None:
        return None
    data = config.data.model_copy(update={"path": distill.unlabelled, **OF_LABELLED})
    try:
        beside = open_unlabelled(data, spec, field=FIELD)
    except SettingsError as error:
        raise UserError(
            f"{FIELD}: {distill.unlabelled!r} has fewer than {FEWEST} different images that can be used"
        ) from error
    check_held(beside.fingerprint, field=FIELD)
    _, firsts = np.unique(beside.sample_ids, return_index=True)
    is_known = np.isin(beside.sample_ids[firsts], pack.sample_ids)
    rows: Rows = np.sort(firsts[~is_known]).astype(np.int64)
    if not len(rows):
        raise UserError(
            f"{FIELD}: the data have every image of {distill.unlabelled!r} already; name a folder of others"
        )
    return Unlabelled(pack=beside, rows=rows, num_known=int(is_known.sum()), share=distill.unlabelled_share)


def with_unlabelled(rows: Rows, *, among: Rows, count: int, seed: int, epoch: int) -> Rows:
    """An epoch's rows with ``count`` of those ``among`` the unlabelled ones at even distances between them.

    As a function of (seed, epoch); each comes as often as any other, give or take once.
    """
    rounds = range(-(-count // len(among)))
    orders = [torch.randperm(len(among), generator=generator(seed, "unlabelled", epoch, each)) for each in rounds]
    chosen = among[torch.cat(orders)[:count].numpy()]
    places = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in (rows, chosen)])
    together: Rows = np.concatenate([rows, chosen])[np.argsort(places, kind="stable")]
    return together
