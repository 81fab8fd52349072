"""The shape of one trial, every field with its unit, range and effect.

A dotted path into :class:`TrialConfig` (``optimizer.lr``) is the name of a value everywhere: in YAML, in Optuna,
in MLflow, in messages.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from trainable.config.technique import unmet
from trainable.config.techniques import (
    HEADS,
    LOSSES,
    METHODS,
    POOLS,
    SOLVERS,
    STRATEGIES,
    ClassSamplingName,
    ClassWeightsName,
    HeadName,
    LossName,
    MethodName,
    PolicyName,
    PoolName,
    ScheduleName,
    SolverName,
    StrategyName,
    StrengthName,
    UpdateRuleName,
    WeightScheduleName,
)
from trainable.config.timm_name import timm_name
from trainable.config.validation import checked
from trainable.home import expand_home
from trainable.metrics import MetricName

# Fields of `data` that neither choose images nor say how they are stored.
NO_SAY_IN_IMAGES = (
    "class_sampling",
    "rehearsal_share",
    "early_epochs",
    "prefix_gb",
    "prefix_dtype",
    "cache",
    "workers",
)


def _with_place(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError(f"{template!r} must hold the place of the class's name, {{}}, once")
    return template


PathText = Annotated[str, AfterValidator(expand_home)]  # a path or an address; `~` is the user's home
ModelName = Annotated[str, AfterValidator(timm_name)]
Template = Annotated[str, AfterValidator(_with_place)]
Stage = Literal["stem", "stage1", "stage2", "stage3", "stage4"]


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataConfig(Section):
    """Where the images are, how they are read, how they are split."""

    path: PathText = Field(
        "",
        description="Folder of images or of Parquet files, nested or not; CSV, Parquet or Arrow file; or the address of Parquet "
        "files that hold the images, such as `s3://bucket/images`. Not used by `format: elpv`.",
    )
    format: Literal["auto", "folder", "manifest", "table", "elpv"] = Field(
        "auto",
        description="How `path` is read; `auto` decides by what is there (a folder, a CSV, image bytes in a table).",
    )
    layout: Literal["auto", "classes", "splits"] = Field(
        "auto",
        description="What the folders of a folder are: `classes`, each with all images below it; `splits` (train, test, Valid, "
        "seg_train, …) with class folders in them; `auto` tells by names and contents, leaves masks out, and asks where both "
        "make sense.",
    )
    labels: Literal["exact", "normalised"] = Field(
        "exact",
        description="Whether names that differ in case, spaces, Unicode form or as 1 and 1.0 are different classes, or one under "
        "the plain form of its name.",
    )
    duplicates: Literal["error", "warn", "keep_first"] = Field(
        "warn",
        description="What is done with the same image in several files: `keep_first` uses one, of several splits the "
        "test's, then val's, else the first by name, and that one's label; `warn` uses all and says so.",
    )
    min_images: int = Field(1, ge=1, description="A class with fewer images is rare.")
    rare: Literal["error", "drop", "merge", "train_only"] = Field(
        "error",
        description="What is done with classes that are rare or have too few images or groups for the splits: leave them out, "
        "merge them into the class `other`, or train on all of their images and neither validate nor test on them.",
    )
    image_size: int | None = Field(
        None, ge=16, le=1024, description="Side of the square input, pixels. Without it the backbone's own size."
    )
    early_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="Side of the input, pixels, in the first `early_epochs`: a cheap look where the early rungs of a search "
        "judge. Those epochs are validated at this size too; without it all have `image_size`.",
    )
    early_epochs: int = Field(0, ge=0, le=1000, description="Epochs trained and validated at `early_size`.")
    channels: int = Field(3, ge=1, le=64, description="Channels decoded and fed: 1 grey, 3 colour, n for .npy images.")
    val_share: float = Field(0.15, gt=0, lt=0.5, description="Share held out for validation where no split is given.")
    test_share: float = Field(0.15, gt=0, lt=0.5, description="Share held out for the test where no split is given.")
    split_seed: int = Field(0, ge=0, description="Seed of the split; a different one gives other held-out images.")
    keep_splits: PathText | None = Field(
        None,
        description="Parquet file with the splits of an earlier version of these images (columns `sample_id`, `split`; "
        "`refresh` writes it): images it knows, and their groups, keep theirs; new ones are cut so that each class comes "
        "nearest to its shares.",
    )
    images: PathText | None = Field(
        None, description="Folder in which the paths of a list (manifest) begin; without it the list's own."
    )
    image_column: str = Field("image", description="Column of the path or the encoded bytes (manifest, table).")
    label_column: str = Field("label", description="Column of the class (manifest, table).")
    split_column: str = Field("split", description="Column of train/val/test; a seeded split is made without it.")
    group_column: str | None = Field(
        None, description="Column of the photographed object; one group's images never straddle splits."
    )
    domain_column: str | None = Field(None, description="Column that names the domain an image comes from.")
    source: list[PathText] = Field(
        [],
        description="Labelled domains to learn from, where there is a `target`: values of `domain_column` (for `elpv` of the "
        "module type, mono or poly), all but the target without it; or, where `path` is empty, data sets read as `path` is.",
    )
    target: PathText | None = Field(
        None,
        description="The domain to adapt to, a value or a data set as `source`. Its labels are not read, and it may have none; "
        "a folder of images without class folders will do.",
    )
    oracle: bool = Field(
        False,
        description="Score the target by its labels too (`oracle/…`); marks every result, since a search that sees them is no "
        "honest one. They never train.",
    )
    elpv_rule: Literal["prob>=0.5", "prob>0"] = Field(
        "prob>=0.5", description="When a solar cell counts as defective (`format: elpv` only)."
    )
    class_sampling: ClassSamplingName = Field(
        "shuffle",
        description="How an epoch draws its images: each once; or as many with replacement, a class with n images being drawn "
        "in proportion to 1, √n, or its effective number (1-β^n)/(1-β) with β = 0.999 (Cui et al. 2019). Instead of "
        "`loss.class_weights`, not with them: both together count a class twice.",
    )
    rehearsal: PathText | None = Field(
        None,
        description="Old images, read as `path` is, whose train split is shown beside the new ones against forgetting.",
    )
    rehearsal_share: float = Field(
        0.5,
        gt=0,
        le=10,
        description="Old images of an epoch for each new one, others in each epoch; at most all there are.",
    )
    max_pixels: int = Field(
        50_000_000, ge=1, description="An image with more pixels is a bad one; decoding takes about 4 bytes a pixel."
    )
    bit_depth: Annotated[int, Field(ge=1, le=32)] | Literal["unit"] | None = Field(
        None,
        description="Bits that are used of pixels with more than 8, such as 12 of a detector; `unit` for values from 0 to 1, as "
        "floating point has them. Without it 16.",
    )
    background: Literal["black", "grey", "white", "keep"] = Field(
        "black",
        description="What shows through transparent pixels; `keep` takes the colours beneath, which one cannot see.",
    )
    on_bad_image: Literal["error", "skip"] = Field(
        "error", description="What an unreadable image does: end with its name, or be named, counted and left out."
    )
    cache: PathText | None = Field(
        None, description="Folder of the decoded images; without it `$XDG_CACHE_HOME` or `~/.cache`, then `/trainable`."
    )
    prefix_gb: float | None = Field(
        None,
        ge=0,
        description="Disk in the cache for what frozen layers make of the images, gigabytes, shared by all trials that freeze "
        "the same layers and vary the images alike; without it a fifth of what is free there; 0 keeps nothing. No effect on "
        "results.",
    )
    prefix_dtype: Literal["float16", "float32"] = Field(
        "float16",
        description="What the outputs of frozen layers are rounded to, kept or not, where training or validation begins behind "
        "them.",
    )
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that prepare batches; 0 prepares them in the trial. No effect on results.",
    )

    @property
    def decoding(self) -> dict[str, Any]:
        """What an image becomes beside its size, as keywords of the decoder."""
        return {name: getattr(self, name) for name in ("channels", "max_pixels", "bit_depth", "background")}


class ModelConfig(Section):
    """Which backbone, from which weights, under which head."""

    name: ModelName = Field(
        "resnet50",
        description="Any timm architecture, or one with the tag of its weights: `resnet18`, `resnet18.a1_in1k`; as the hub "
        "has them, `timm/resnet18.a1_in1k` and `hf-hub:timm/…`, too.",
    )
    weights: PathText = Field(
        "pretrained",
        description="`pretrained` (timm's hub), `random`, a safetensors or torch file, or `package:efficientnet-lite0`.",
    )
    until: Literal["stage1", "stage2", "stage3", "stage4"] | None = Field(
        None,
        description="The stage behind which the backbone ends, its maps averaged as features: a smaller, faster network, and a "
        "better one where an earlier stage's probe is better; null is the whole backbone. What is left keeps its stages' names; "
        "a share in `freeze.depth` is one of what is left.",
    )
    pool: PoolName = Field(
        "own",
        description="Features that the head is given: the backbone's `own` pooled ones, or beside them the mean and the standard "
        "deviation over the image of the maps that end its last two `stages`: textures and small things show there. Its last map "
        "pooled by `gem`, the generalised mean, whose exponent begins at 3 and trains with the head (Radenović et al. 2018), or "
        "`attentive`, by the attention of one query, which trains with the head too. A transformer's class token beside the mean "
        "of its patches' tokens, `token_mean`, or those of several of its last `blocks` beside that mean (Oquab et al. 2023).",
    )
    pool_blocks: int = Field(4, ge=1, le=4, description="Of how many last blocks `pool: blocks` takes the class token.")
    head: HeadName = Field(
        "linear",
        description="Classifier on the pooled features: one layer (`linear`), a hidden one before it (`mlp`), or a learned scale "
        "times the cosine between features and each class's weights (`cosine`, Gidaris & Komodakis 2018), where no class wins by "
        "the length of its weights; or the same in the space of images and text of a backbone that was trained with both (CLIP, "
        "SigLIP), beginning with what its text tower makes of the classes' names (`text`, Radford et al. 2021).",
    )
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


class FinetuneConfig(Section):
    """What trains when."""

    strategy: StrategyName = Field(
        "partial",
        description="`partial` freezes `freeze.depth`; `full` nothing; `scratch` nothing, from random weights; `linear_probe` "
        "all but the head; `norm_only` and `bias_only` train the norms' or the biases' parameters and the head; `surgical` the "
        "stages of `finetune.trainable`; `gradual` thaws stage after stage; `lp_ft` starts with the solved probe as head, "
        "a cosine one with its `prototypes`, norms keeping the statistics it was solved for (Kumar et al. 2022); "
        "`two_stage` ends by training a new head on balanced classes (Kang et al. 2020); `lora` (Hu et al. 2022) and "
        "`dora` (Liu et al. 2024) train light adapters in the layers above `freeze.depth`, whose own weights rest, and "
        "the head; `adapter` trains a bottleneck behind each block there instead (Houlsby et al. 2019), `prompt` tokens "
        "that each block of a vision transformer is shown there (Jia et al. 2022).",
    )
    trainable: list[Stage] = Field(
        ["stage1"],
        min_length=1,
        description="Neighbouring stages that `surgical` trains; early ones for another look of the same things, late ones for "
        "other classes (Lee et al. 2023).",
    )
    order: Literal["top_down", "bottom_up"] = Field(
        "top_down", description="Which stage `gradual` thaws first: the one next to the head, or the stem."
    )
    every: int = Field(
        1,
        ge=1,
        le=1000,
        description="Epochs from one thaw of `gradual` to the next; before the first the head trains alone.",
    )
    schedule: dict[Stage, Annotated[int, Field(ge=1)]] | None = Field(
        None,
        description="The first epoch each stage trains in, as {stage4: 6, stage3: 11}, instead of `order` and `every`; stages "
        "left out stay frozen.",
    )
    classifier_share: float = Field(
        0.3, gt=0, lt=1, description="Share of the epochs, at the end, in which `two_stage` trains its new head alone."
    )
    probe_c: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Inverse L2 strength of the probe that `lp_ft` starts with and of the head that `solver` solves for, on "
        "standardised features.",
    )
    rank: int = Field(8, ge=1, le=1024, description="Rank r of the adapters of `lora` and `dora`.")
    alpha: float | None = Field(
        None,
        gt=0,
        le=4096,
        description="α of the adapters of `lora` and `dora`, whose change of a layer counts alpha/rank times; without it 2·rank, "
        "whatever rank is searched.",
    )
    adapter_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of an adapter's input, a probability.")
    bottleneck: int = Field(64, ge=1, le=1024, description="Width of the bottlenecks of `adapter`, channels.")
    prompts: int = Field(10, ge=1, le=200, description="Tokens that `prompt` shows each block.")
    targets: Literal["auto", "attention", "mlp", "all_linear", "convolutions"] = Field(
        "auto",
        description="The layers that get adapters: those of `attention`, of the `mlp` blocks, `all_linear` ones, or all "
        "`convolutions` but grouped ones; `auto` is all_linear where most layers are linear, as in transformers and "
        "ConvNeXt, else convolutions.",
    )
    beside: Literal["nothing", "norms", "biases"] = Field(
        "nothing",
        description="What trains beside the adapters in the layers above `freeze.depth`: `norms` are their norm layers' weights "
        "and statistics. Norm layers that do not train rest as `freeze.bn` says.",
    )
    solver: SolverName = Field(
        "gradient",
        description="How `linear_probe` finds its head: by `gradient` steps; a linear one by `lbfgs`, as a logistic regression, "
        "or in `closed_form`, as a ridge classifier, whose probabilities are not calibrated; a cosine one by `prototypes`, the "
        "classes' mean features; a text one by `text`, the features of class names, which is zero-shot. A head that is solved "
        "for takes one epoch, without updates; classes weigh the same.",
    )
    text_weights: PathText = Field(
        "auto",
        description="The text tower for `model.head: text`, by the library open_clip: `auto` is that of the backbone's weights, "
        "where it is known; else `ARCHITECTURE/TAG` as open_clip names them, such as `ViT-B-16/dfn2b`, or a folder with "
        "`open_clip_config.json` and weights. Its image tower must give the backbone's features.",
    )
    templates: list[Template] = Field(
        ["a photo of a {}.", "a photo of the {}.", "a close-up photo of a {}.", "a bad photo of a {}."],
        min_length=1,
        description="Sentences in which `model.head: text` shows a class's name to the text tower, in the place of {}; the "
        "features of all, each of length 1, are averaged.",
    )
    class_names: dict[str, str] = Field(
        {},
        description="What `model.head: text` calls a class, as {class: name}; the others are called as they are, with spaces "
        "for `_` and `-`.",
    )
    l2_sp: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Pull α/2·‖w-w₀‖² of the backbone's weights back to where they began (L2-SP, Li et al. 2018); 0 is off. "
        "Can hurt where the images are unlike the pretraining's (Li et al. 2020).",
    )
    ewc: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="The same pull, each weight's times its Fisher information on `data.rehearsal`, scaled to mean 1 (elastic "
        "weight consolidation, Kirkpatrick et al. 2017); `model.weights` must be a whole fine-tuned network. 0 is off.",
    )


class OptimizerConfig(Section):
    """How a gradient becomes a step."""

    name: UpdateRuleName = Field(
        "adamw",
        description="Update rule; LAMB, Lion and Muon are timm's. Lion's rate is best 3 to 10 times below AdamW's "
        "(Chen et al. 2023); Muon turns to AdamW for norms and biases.",
    )
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
        0.01, ge=0, le=1, description="Decoupled, or L2 in the gradient (SGD, Adam); never on norms and biases."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's and Muon's momentum; the others' beta1.")
    nesterov: bool = Field(True, description="Nesterov's momentum (SGD and Muon).")
    clip_norm: float | None = Field(
        None, gt=0, description="Largest L2 norm of the whole gradient; none clips nothing."
    )


class ScheduleConfig(Section):
    """How the learning rate moves: linear warm-up, then by name to the end of training."""

    name: ScheduleName = Field(
        "cosine",
        description="After the warm-up: a half cosine to `final`; up and down again (one_cycle, Smith 2018); constant and at the "
        "end straight down to `final` (wsd); times `factor` at each of `milestones` (step); times `factor` where "
        "`train.metric` stands still (plateau); constant.",
    )
    warmup_epochs: float = Field(0.0, ge=0, description="Length of the linear warm-up, epochs; fractions allowed.")
    warmup_start: float = Field(0.01, ge=0, le=1, description="Rate at the first step as a share of the peak.")
    final: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Rate after the last step as a share of the peak (cosine, one_cycle, wsd); the least one (plateau).",
    )
    rise_share: float = Field(
        0.3, gt=0, lt=1, description="Share of the updates after the warm-up in which `one_cycle` rises."
    )
    decay_share: float = Field(
        0.2, gt=0, le=1, description="Share of the updates after the warm-up in which `wsd` decays."
    )
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.3, 0.6, 0.9],
        description="Shares of the updates after the warm-up at which `step` lowers the rate (BiT-HyperRule's by default).",
    )
    factor: float = Field(0.1, gt=0, lt=1, description="What `step` and `plateau` multiply the rate by.")
    patience: int = Field(3, ge=1, description="Epochs without a better `train.metric` before `plateau` acts.")


class TrainConfig(Section):
    """How long and in what numerics."""

    epochs: int = Field(10, ge=1, le=1000, description="Length of the full training, epochs.")
    batch_size: int = Field(32, ge=2, le=4096, description="Images per forward pass.")
    accumulate: int = Field(
        1, ge=1, le=256, description="Forward passes per update: effective batch = batch_size × accumulate."
    )
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto",
        description="Mixed precision: `auto` is bf16 on a GPU that computes in it, else off; on a CPU no `fp16`. What was used "
        "is in the checkpoint.",
    )
    channels_last: bool = Field(
        True, description="Memory layout N×H×W×C inside: faster convolutions on CPUs and on recent GPUs."
    )
    patience: int | None = Field(
        None, ge=1, description="Epochs without a better `metric` before training ends; none trains on."
    )
    min_delta: float = Field(
        0.0, ge=0, le=1, description="How much better an epoch must be to count for `patience`, in the metric's unit."
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Evaluate a running average of the weights: the share of it that is left after one epoch, whatever the "
        "number of updates; 0 is off.",
    )
    ema_start: int = Field(0, ge=0, description="Epochs before the average begins.")
    min_updates: int = Field(
        1,
        ge=1,
        le=1000,
        description="Updates an epoch must have: `batch_size` is lowered until it does, and the one used is said and logged.",
    )
    metric: MetricName = Field(
        "val/balanced_accuracy", description="What the best epoch and early stopping are judged by."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes CUDA where there is one.")


class AugmentConfig(Section):
    """How training images are varied."""

    strength: StrengthName = Field(
        "light",
        description="Flips and turns alone (symmetries); crop and flip (light), + colour jitter (medium), + RandAugment and "
        "erasing (strong).",
    )
    views: Annotated[int, Field(ge=1, le=1000)] | Literal["each_epoch", "auto"] = Field(
        "auto",
        description="How many views of an image training sees, one after the other and again: `each_epoch` another in every "
        "epoch; `auto` 4 where it begins behind frozen layers with half of the work or more, which are computed once for each, "
        "else each_epoch. `symmetries` have as many as there are.",
    )
    flip: Literal["none", "horizontal", "both"] = Field(
        "horizontal", description="Mirroring allowed by the subject; needs `strength` other than none."
    )
    rotate: Literal["none", "quarter"] = Field(
        "none", description="Quarter turns, where orientation carries no meaning; needs `strength` other than none."
    )
    auto: PolicyName | None = Field(
        None, description="Policy of random operations; without it `strength` decides (strong: randaugment)."
    )
    auto_ops: int = Field(2, ge=1, le=8, description="Operations of randaugment on an image.")
    auto_magnitude: int = Field(9, ge=0, le=30, description="Strength of randaugment's operations, of 30.")
    erase: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Probability of erasing a rectangle; without it `strength` decides (strong: 0.5)."
    )
    custom: list[str] = Field(
        [],
        examples=["package.module:function"],
        description="Import paths of your own operations, `package.module:function`, applied last: C×S×S uint8 tensors in and "
        "out, drawing from torch's global generator. This is code: it needs `--allow-code` (or `SEARCH_ALLOW_CODE=1`).",
    )
    mixup: float = Field(0.0, ge=0, le=10, description="MixUp's Beta(α, α); 0 is off.")
    cutmix: float = Field(
        0.0, ge=0, le=10, description="CutMix's Beta(α, α); 0 is off. With both on, a coin chooses per batch."
    )
    mix_probability: float = Field(1.0, ge=0, le=1, description="Share of batches that MixUp or CutMix touches.")
    mix_until: int | None = Field(None, ge=1, description="Last epoch with MixUp or CutMix; without it all have them.")


class LossConfig(Section):
    """What is minimised."""

    name: LossName = Field(
        "ce",
        description="Cross-entropy; `focal` loss (Lin et al. 2017); for long tails `balanced_softmax` (Ren et al. 2020) or "
        "`logit_adjusted` (Menon et al. 2021), which learn logits for classes of the same size from images of classes that are "
        "not: instead of `class_weights`, `data.class_sampling` and `logit_adjustment`.",
    )
    focal_gamma: float = Field(
        2.0, ge=0, le=10, description="Exponent of focal loss: well classified images count by (1-p)^γ."
    )
    focal_alpha: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Focal loss's weight α of the rarest class, every other having 1-α; instead of `class_weights`.",
    )
    logit_tau: float = Field(
        1.0,
        ge=0,
        le=3,
        description="τ of `logit_adjusted`: in training τ·log(share of the class in training) is added to each logit; 1 is "
        "`balanced_softmax`, 0 cross-entropy.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    class_weights: ClassWeightsName = Field(
        "none",
        description="Weight of a class with n training images, scaled to mean 1: 1, 1/n, or (1-β)/(1-β^n) with β = 0.999 "
        "(Cui et al. 2019). Instead of `data.class_sampling`.",
    )
    class_weight_power: float = Field(
        1.0, gt=0, le=2, description="Exponent of the class weights before scaling: 0.5 softens them to n^-½."
    )
    logit_adjustment: float = Field(
        0.0,
        ge=0,
        le=3,
        description="τ: at evaluation τ·log(share of the class in training) is taken off each logit, which favours rare "
        "classes (Menon et al. 2021); 0 is off.",
    )


class AdaptConfig(Section):
    """How the network learns from images of the target domain, which have no labels."""

    method: MethodName = Field(
        "none",
        description="`dann` fools a domain classifier (Ganin et al. 2016), `cdan` one that sees the predictions too (Long et al. "
        "2018); `mmd` (Long et al. 2015) and `coral` (Sun & Saenko 2016) draw the domains' features together; `mcc` asks for "
        "predictions that confuse no classes (Jin et al. 2020); `adabn` (Li et al. 2018) gives batch norms the target's "
        "statistics after training, `dsbn` (Chang et al. 2019) each domain its own in training; `adversarial` trains on "
        "source images moved towards the target, `fda` on some with the target's low frequencies (Yang & Soatto 2020).",
    )
    weight: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Weight of the method's term beside the loss; of `fda`, at most 1, the share of source images that it "
        "changes.",
    )
    schedule: WeightScheduleName = Field(
        "fixed",
        description="The weight from first to last update: all of it; rising from 0 as 2/(1+exp(-γp))-1 with the share p of the "
        "training; or times sigmoid(`dynamic_scale`·d), d being the distance of the domains' mean features in standard "
        "deviations, which never falls below a half and so keeps pulling domains that are alike; or `bounded`, so that the term "
        "of mmd, coral, mcc or adversarial never counts for more than the weight times the classification's loss.",
    )
    ganin_gamma: float = Field(10.0, gt=0, le=100, description="γ of the schedule `ganin`.")
    dynamic_scale: float = Field(0.1, gt=0, le=100, description="How fast the schedule `dynamic` grows with distance.")
    layer: Literal["pooled", "stage1", "stage2", "stage3", "stage4"] = Field(
        "pooled",
        description="Whose features are drawn together: the backbone's pooled ones, or a stage's averaged over the image; the "
        "stage must train.",
    )
    hidden: int = Field(
        256, ge=8, le=4096, description="Width of the domain classifier's hidden layers (dann, cdan, adversarial)."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in the domain classifier, a probability.")
    bandwidths: list[Annotated[float, Field(gt=0)]] = Field(
        [0.25, 0.5, 1.0, 2.0, 4.0],
        min_length=1,
        description="Widths of the kernels of `mmd`, times the median squared distance.",
    )
    temperature: float = Field(2.5, gt=0, le=100, description="What `mcc` divides the logits by.")
    eps: float = Field(
        4.0, gt=0, le=255, description="How far `adversarial` moves a pixel at most, in grey levels of 255."
    )
    steps: int = Field(
        1, ge=1, le=50, description="Gradient steps of `adversarial`: 1 is FGSM, more are PGD (Madry et al. 2018)."
    )
    beta: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Half side of the square of low frequencies that `fda` swaps, of the image's side.",
    )


class DistillConfig(Section):
    """What is learnt from trained networks beside the labels."""

    teachers: list[PathText] = Field(
        [],
        description="Folders of packaged or registered models of the same classes, whose probabilities of the training images, "
        "on average, are learnt beside the labels (Hinton et al. 2015). They must not have learnt from images that this one is "
        "chosen or tested by. Not with MixUp, CutMix or `data.rehearsal`.",
    )
    weight: float = Field(
        0.5, gt=0, le=1, description="Share of a target that the teachers give, the rest being the label."
    )
    temperature: float = Field(
        1.0, ge=0.1, le=20, description="What the teachers' logits are divided by; above 1 their targets are softer."
    )
    unlabelled: PathText | None = Field(
        None,
        description="Folder of images without labels, at any depth, that are learnt beside the labelled ones by the teachers' "
        "targets alone, whatever `weight` is; they never choose or test. Images that the data have too are left out.",
    )
    unlabelled_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of each batch that is unlabelled, which makes an epoch longer; others in each epoch, and where there "
        "are too few, each several times.",
    )


class TrialConfig(Section):
    """Everything one trial is: the same configuration and data give the same result."""

    seed: int = Field(0, ge=0, description="Seed of the head's start, batch order, views, dropout and mixing.")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    freeze: FreezeConfig = FreezeConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lr_schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    adapt: AdaptConfig = AdaptConfig()
    distill: DistillConfig = DistillConfig()

    @classmethod
    def of(cls, sections: Mapping[str, Any]) -> Self:
        """The configuration of these sections; raises SettingsError with a line in words for each mistake."""
        return checked(cls, sections)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        problems = list(_misfits(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def used_batch_size(train: TrainConfig, *, num_images: int) -> int:
    """``train.batch_size``, or the largest with which an epoch of so many images has ``train.min_updates``; at least 2."""
    if train.min_updates == 1:
        return train.batch_size
    return min(train.batch_size, max(2, num_images // (train.min_updates * train.accumulate)))


def classifier_epochs(config: TrialConfig) -> int:
    """Epochs, at the end, in which ``two_stage`` trains its new head; for any other strategy 0."""
    share = config.finetune.classifier_share if config.finetune.strategy == "two_stage" else 0
    return math.ceil(share * config.train.epochs)


def _misfits(config: TrialConfig) -> Iterator[str]:
    """One line for each pair of values that cannot go together."""
    yield from _misfits_of_domains(config)
    yield from _misfits_of_teachers(config)
    train, finetune, loss = config.train, config.finetune, config.loss
    span = train.epochs - classifier_epochs(config)
    if span < 1:
        yield (
            f"finetune.classifier_share: {finetune.classifier_share} of train.epochs: {train.epochs} leaves none for the "
            "first stage"
        )
    elif config.lr_schedule.warmup_epochs >= span:
        of = "train.epochs" if span == train.epochs else "the first stage's epochs"
        yield f"lr_schedule.warmup_epochs: {config.lr_schedule.warmup_epochs} does not fit into {of}: {span}"
    if config.data.early_size is not None and not 0 < config.data.early_epochs < train.epochs:
        yield (
            f"data.early_epochs: got {config.data.early_epochs}, must be at least 1 and below train.epochs: {train.epochs} for "
            "data.early_size"
        )
    if finetune.ewc and finetune.l2_sp:
        yield "finetune.ewc: excludes finetune.l2_sp; use one"
    if finetune.ewc and config.data.rehearsal is None:
        yield "finetune.ewc: needs data.rehearsal, the images not to be forgotten"
    if finetune.ewc and finetune.strategy == "scratch":
        yield "finetune.ewc: there are no weights to hold to, finetune.strategy is scratch"
    if train.ema and train.ema_start >= train.epochs:
        yield f"train.ema_start: {train.ema_start} leaves no step to average in train.epochs: {train.epochs}"
    if config.data.class_sampling != "shuffle" and loss.class_weights != "none":
        drawn = f"data.class_sampling: {config.data.class_sampling!r}"
        yield f"{drawn} and loss.class_weights: {loss.class_weights!r} exclude each other; use one"
    if loss.focal_alpha is not None and loss.class_weights != "none":
        yield f"loss.focal_alpha: excludes loss.class_weights: {loss.class_weights!r}; use one"
    yield from unmet(STRATEGIES[finetune.strategy], config=config)
    yield from unmet(SOLVERS[finetune.solver], config=config)
    yield from unmet(LOSSES[loss.name], config=config)
    yield from unmet(POOLS[config.model.pool], config=config)
    yield from unmet(HEADS[config.model.head], config=config)


def _misfits_of_domains(config: TrialConfig) -> Iterator[str]:
    data, adapt, metric = config.data, config.adapt, config.train.metric
    if data.target is None:
        if adapt.method != "none":
            yield f"adapt.method: {adapt.method!r} needs data.target, the domain to adapt to"
        if data.source:
            yield "data.source: needs data.target; without one give data.path alone"
        if data.oracle:
            yield "data.oracle: needs data.target, whose labels it reads"
        if not metric.startswith("val/"):
            yield f"train.metric: {metric!r} needs data.target"
    elif data.target in data.source:
        yield f"data.target: {data.target!r} is among data.source"
    elif not data.source and not data.path and data.format != "elpv":
        yield "data.source: name the labelled data sets to learn from, or the one that holds both domains as data.path"
    if metric.startswith("oracle/") and not data.oracle:
        yield f"train.metric: {metric!r} reads the target's labels; data.oracle: true allows that and marks every result"
    yield from unmet(METHODS[adapt.method], config=config)


def _misfits_of_teachers(config: TrialConfig) -> Iterator[str]:
    if config.distill.unlabelled is not None and not config.distill.teachers:
        yield "distill.unlabelled: needs distill.teachers, which answer for its images"
    if config.distill.teachers:
        mixing = [f"augment.{name}" for name in ("mixup", "cutmix") if getattr(config.augment, name)]
        rehearsing = ["data.rehearsal"] if config.data.rehearsal is not None else []
        for other in [*mixing, *rehearsing]:
            yield f"distill.teachers: excludes {other}, of whose images no teacher is asked"
