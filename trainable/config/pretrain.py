"""The shape of one self-supervised pre-training, every field with its unit, range and effect."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from trainable.config.trial import DataConfig, ModelConfig, Section


class PretrainSettings(Section):
    """How a backbone is pre-trained on images alone. Sizes and rates are those of small data sets on one GPU."""

    method: Literal["simclr", "moco"] = Field(
        "simclr",
        description="Where an image's negatives come from: the other images of its batch (SimCLR, Chen et al. 2020), or a queue "
        "of keys that a slower copy of the network made (MoCo v2, Chen et al. 2020), which needs no large batch.",
    )
    epochs: int = Field(200, ge=1, le=10000, description="Length of the training, epochs; the rate falls to 0 over it.")
    batch_size: int = Field(
        128, ge=4, le=8192, description="Images an update, two views of each; SimCLR gains from more."
    )
    lr: float = Field(
        0.06,
        gt=0,
        le=10,
        description="Rate at the start of a half cosine, of SGD with momentum 0.9 (lightly's benchmarks).",
    )
    weight_decay: float = Field(5e-4, ge=0, le=1, description="L2 in the gradient (lightly's benchmarks).")
    temperature: float = Field(
        0.2,
        ge=0.01,
        le=2,
        description="Cosine similarities are divided by it: the lower, the more the nearest negatives count. SimCLR 0.1 to 0.5, "
        "MoCo v2 0.2.",
    )
    projection_width: int = Field(128, ge=2, le=8192, description="Numbers of an embedding, which the loss compares.")
    projection_hidden: int = Field(
        2048, ge=2, le=16384, description="Width of the projection's hidden layer; the projection is thrown away."
    )
    momentum: float = Field(
        0.99, ge=0, lt=1, description="MoCo: share of the key network that an update leaves (0.999 on ImageNet)."
    )
    queue_size: int = Field(
        1024, ge=4, le=262144, description="MoCo: keys that are negatives; fewer than there are images."
    )
    norm_groups: int = Field(
        4,
        ge=1,
        le=64,
        description="MoCo: parts of a batch that batch norm sees apart, other ones for keys than for queries, so that its "
        "statistics do not give the positive away (He et al. 2020, 3.3). 1 turns this off.",
    )
    flip: Literal["none", "horizontal", "both"] = Field("horizontal", description="Mirroring allowed by the subject.")
    rotate: Literal["none", "quarter"] = Field(
        "none", description="Quarter turns, where orientation carries no meaning."
    )
    amp: Literal["off", "bf16"] = Field("off", description="Mixed precision of the network; the loss stays in float32.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes CUDA where there is one.")
    seed: int = Field(0, ge=0, description="Seed of the start, the order of images, the views and dropout.")


class PretrainConfig(PretrainSettings):
    """The pre-training of one backbone on one set of images."""

    unlabelled: bool = Field(
        False,
        description="`data.path` is a folder of images without classes, every one of which is used. Otherwise it is a data set "
        "as a trial's, of which only the train split is used.",
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        problems = list(_misfits(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _misfits(config: PretrainConfig) -> Iterator[str]:
    if config.data.class_sampling != "shuffle":
        yield f"data.class_sampling: {config.data.class_sampling!r} draws by label, which pre-training never reads; use 'shuffle'"
    if config.model.pool in ("gem", "attentive"):
        yield f"model.pool: {config.model.pool!r} trains with a head, which pre-training has not; use 'own'"
    if config.method == "moco" and config.batch_size < 2 * config.norm_groups:
        yield (
            f"norm_groups: {config.norm_groups} parts of batch_size: {config.batch_size} are less than 2 images each, "
            f"must be at most {config.batch_size // 2}"
        )
