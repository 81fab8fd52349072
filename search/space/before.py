"""The sections of what is done before a search's trials: backbones chosen, weights trained."""

from typing import Literal

from pydantic import Field

from search.space.sections import Section
from trainable.config.meta import MetaSettings
from trainable.config.pretrain import PretrainSettings
from trainable.config.trial import PathText


class SelectSection(Section):
    """A cheap look at the backbones before any is trained."""

    keep: int = Field(3, ge=1, description="How many go into the search.")
    by: Literal["logme", "h_score", "probe"] = Field(
        "logme",
        description="Score of the frozen pooled features: on training images LogME (You et al. 2021) or the regularised H-score "
        "(Bao et al. 2019, Ibrahim et al. 2022), or the balanced accuracy on validation images of a linear probe.",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="By the clock, of scoring: the cheapest backbone first, by the multiply-adds of an image; what does not fit "
        "is left out, and it is said which. The cheapest is scored in any case. Without it all are.",
    )
    sample: int | None = Field(
        2000,
        ge=2,
        description="Training images, and as many validation images, that backbones are scored on, classes in proportion; null "
        "takes all.",
    )
    image_size: Literal["own", "space"] = Field(
        "own",
        description="At what size a backbone is scored: `own` is its own where `base` has no `data.image_size`, else that; "
        "`space` that of the first point of the space.",
    )


class SslSection(PretrainSettings):
    """A self-supervised pre-training before the search; `ssl` among the choices of `model.weights` stands for its result."""

    path: PathText | None = Field(
        None, description="Folder of images without labels, in any folders below; without it the training images."
    )
    weights: PathText = Field("pretrained", description="What it begins with, as `model.weights`.")


class MetaSection(MetaSettings):
    """A meta-training before the search; `meta` among the choices of `model.weights` stands for its result."""

    path: PathText = Field(description="Labelled images that tasks are drawn from, read as `data.path` is.")
    weights: PathText = Field("pretrained", description="What it begins with, as `model.weights`.")
