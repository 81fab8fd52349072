"""The shape of one meta-training, every field with its unit, range and effect."""

from typing import Literal

from pydantic import Field

from trainable.config.trial import DataConfig, ModelConfig, Section


class MetaSettings(Section):
    """Meta-training over tasks of a few classes and images each. The defaults are MAML's on small images."""

    method: Literal["maml", "anil", "reptile"] = Field(
        "anil",
        description="What adapts to a task, and what is learnt from it: all weights, by the gradient through their adaptation "
        "(MAML, Finn et al. 2017); the head alone, likewise (ANIL, Raghu et al. 2020), for a fraction of the work; all "
        "weights, learnt by moving towards the adapted ones (Reptile, Nichol et al. 2018), in the least memory.",
    )
    ways: int = Field(5, ge=2, le=1000, description="Classes of a task.")
    shots: int = Field(5, ge=1, le=1000, description="Images a class that a task is adapted to.")
    queries: int = Field(
        15,
        ge=1,
        le=1000,
        description="Other images a class by which the adapted weights are judged; Reptile only reports them.",
    )
    inner_steps: int = Field(
        5, ge=1, le=100, description="Gradient steps of an adaptation; MAML's memory grows with them."
    )
    inner_lr: float = Field(0.01, gt=0, le=10, description="Rate of an adaptation's steps.")
    first_order: bool = Field(
        False,
        description="MAML and ANIL without second derivatives: less memory, nearly as good (Finn et al. 2017, 5.2).",
    )
    outer_lr: float = Field(1e-3, gt=0, le=1, description="Rate of Adam, which learns the start.")
    tasks: int = Field(4, ge=1, le=256, description="Tasks an update of the start is the mean of.")
    updates: int = Field(1000, ge=1, le=10**6, description="Length of the training, updates of the start.")
    report_every: int = Field(50, ge=1, description="Updates from one report, and one state kept, to the next.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes CUDA where there is one.")
    seed: int = Field(0, ge=0, description="Seed of the start, the tasks and dropout.")


class MetaConfig(MetaSettings):
    """The meta-training of one backbone on one labelled set of images."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
