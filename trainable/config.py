"""The shape of one trial, every field with its unit, range and effect.

A dotted path into :class:`TrialConfig` (``optimizer.lr``) is the name of a value everywhere: in YAML, in Optuna,
in MLflow, in messages.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MetricName = Literal["val/accuracy", "val/balanced_accuracy", "val/macro_f1", "val/loss", "val/ece"]

Stage = Literal["stem", "stage1", "stage2", "stage3", "stage4"]


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataConfig(Section):
    """Where the images are, how they are read, how they are split."""

    path: str = Field("", description="Folder, CSV, Parquet or Arrow file. Not used by `format: elpv`.")
    format: Literal["auto", "folder", "manifest", "table", "elpv"] = Field(
        "auto",
        description="How `path` is read; `auto` decides by what is there (a folder, a CSV, image bytes in a table).",
    )
    image_size: int | None = Field(
        None, ge=16, le=1024, description="Side of the square input, pixels. Without it the backbone's own size."
    )
    channels: int = Field(3, ge=1, le=64, description="Channels decoded and fed: 1 grey, 3 colour, n for .npy images.")
    val_share: float = Field(0.15, gt=0, lt=0.5, description="Share held out for validation where no split is given.")
    test_share: float = Field(0.15, gt=0, lt=0.5, description="Share held out for the test where no split is given.")
    split_seed: int = Field(0, ge=0, description="Seed of the split; a different one gives other held-out images.")
    image_column: str = Field("image", description="Column of the path or the encoded bytes (manifest, table).")
    label_column: str = Field("label", description="Column of the class (manifest, table).")
    split_column: str = Field("split", description="Column of train/val/test; a seeded split is made without it.")
    group_column: str | None = Field(
        None, description="Column of the photographed object; one group's images never straddle splits."
    )
    domain_column: str | None = Field(None, description="Column that names the domain an image comes from.")
    elpv_rule: Literal["prob>=0.5", "prob>0"] = Field(
        "prob>=0.5", description="When a solar cell counts as defective (`format: elpv` only)."
    )
    on_bad_image: Literal["error", "skip"] = Field(
        "error", description="What an unreadable image does: end with its name, or be named, counted and left out."
    )
    cache: str | None = Field(
        None, description="Folder of the decoded images; without it `$XDG_CACHE_HOME` or `~/.cache`, then `/trainable`."
    )
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that prepare batches; 0 prepares them in the trial. No effect on results.",
    )


class ModelConfig(Section):
    """Which backbone, from which weights, under which head."""

    name: str = Field("resnet50", description="Any timm architecture.")
    weights: str = Field(
        "pretrained",
        description="`pretrained` (timm's hub), `random`, a safetensors or torch file, or `package:efficientnet-lite0`.",
    )
    head: Literal["linear", "mlp"] = Field("linear", description="Classifier on the pooled features.")
    head_hidden: int = Field(512, ge=8, le=8192, description="Width of the `mlp` head's hidden layer.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the classifier, a probability.")
    drop_path: float = Field(0.0, ge=0, lt=1, description="Stochastic depth of the backbone, a probability; 0 is off.")


class FreezeConfig(Section):
    """Which layers stay as they were pretrained."""

    depth: Annotated[float, Field(ge=0, le=1)] | Stage | list[Stage] = Field(
        0.0,
        description="Share of the units frozen from the input on (0 none, 1 all but the head); or the last frozen stage "
        "(`stem`, `stage1`…`stage4`); or the list of the trainable stages, everything else frozen.",
    )
    bn: Literal["eval", "train_stats", "train_all"] = Field(
        "eval",
        description="Frozen norm layers: fixed; statistics adapt; statistics and affine weights both train.",
    )


class OptimizerConfig(Section):
    """How a gradient becomes a step."""

    name: Literal["adamw", "sgd"] = Field("adamw", description="Update rule.")
    lr: float = Field(1e-3, gt=0, le=10, description="Peak learning rate of the head.")
    backbone_multiplier: float = Field(
        1.0, gt=0, le=10, description="Rate of the backbone over the head's, before layer decay."
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor from one unit to the one below: unit i of n, from 0, has lr·backbone_multiplier·layer_decay^(n-i).",
    )
    weight_decay: float = Field(
        0.01, ge=0, le=1, description="Decoupled (AdamW) or L2 (SGD); never on norms and biases."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum; AdamW's beta1.")
    clip_norm: float | None = Field(
        None, gt=0, description="Largest L2 norm of the whole gradient; none clips nothing."
    )


class ScheduleConfig(Section):
    """How the learning rate moves: linear warm-up, then cosine to the end of training."""

    warmup_epochs: float = Field(0.0, ge=0, description="Length of the linear warm-up, epochs; fractions allowed.")
    warmup_start: float = Field(0.01, ge=0, le=1, description="Rate at the first step as a share of the peak.")
    final: float = Field(0.0, ge=0, le=1, description="Rate after the last step as a share of the peak.")


class TrainConfig(Section):
    """How long and in what numerics."""

    epochs: int = Field(10, ge=1, le=1000, description="Length of the full training, epochs.")
    batch_size: int = Field(32, ge=2, le=4096, description="Images per forward pass.")
    accumulate: int = Field(
        1, ge=1, le=256, description="Forward passes per update: effective batch = batch_size × accumulate."
    )
    amp: Literal["off", "bf16", "fp16"] = Field(
        "off", description="Mixed precision on CUDA; on a CPU only `off` and `bf16`."
    )
    channels_last: bool = Field(
        False, description="Memory layout N×H×W×C inside: faster convolutions on recent hardware."
    )
    patience: int | None = Field(
        None, ge=1, description="Epochs without a better `metric` before training ends; none trains on."
    )
    metric: MetricName = Field(
        "val/balanced_accuracy", description="What the best epoch and early stopping are judged by."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes CUDA where there is one.")


class AugmentConfig(Section):
    """How training images are varied."""

    strength: Literal["none", "light", "medium", "strong"] = Field(
        "light", description="Crop and flip (light), + colour jitter (medium), + RandAugment and erasing (strong)."
    )
    flip: Literal["none", "horizontal", "both"] = Field(
        "horizontal", description="Mirroring allowed by the subject; needs `strength` other than none."
    )
    rotate: Literal["none", "quarter"] = Field(
        "none", description="Quarter turns, where orientation carries no meaning; needs `strength` other than none."
    )
    mixup: float = Field(0.0, ge=0, le=10, description="MixUp's Beta(α, α); 0 is off.")
    cutmix: float = Field(
        0.0, ge=0, le=10, description="CutMix's Beta(α, α); 0 is off. With both on, a coin chooses per batch."
    )
    mix_probability: float = Field(1.0, ge=0, le=1, description="Share of batches that MixUp or CutMix touches.")


class LossConfig(Section):
    """What is minimised."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    class_weights: Literal["none", "sqrt", "inverse"] = Field(
        "none", description="Weight of a class: 1, n^-½ or n^-1 of its training count n, scaled to mean 1."
    )


class TrialConfig(Section):
    """Everything one trial is: the same configuration and data give the same result."""

    seed: int = Field(0, ge=0, description="Seed of the head's start, batch order, views, dropout and mixing.")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    freeze: FreezeConfig = FreezeConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.schedule.warmup_epochs >= self.train.epochs:
            raise ValueError(
                f"schedule.warmup_epochs: {self.schedule.warmup_epochs} does not fit into train.epochs: {self.train.epochs}"
            )
        return self
