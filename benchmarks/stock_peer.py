"""The same search written with the stock parts, as their tutorials have it; benchmarks/compare.py measures it.

Ray Tune's function trainable, OptunaSearch, ASHAScheduler, MLflowLoggerCallback, torchvision's ImageFolder, torch's
DataLoader, timm. Of this project only the loader of the packaged weights is used.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from sklearn.metrics import balanced_accuracy_score
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from trainable.model.weights import load_weights

Settings = dict[str, Any]
METRIC = "val/balanced_accuracy"
ARCHITECTURE = "tf_efficientnet_lite0"


def space(settings: Settings) -> Settings:
    return {
        "lr": tune.loguniform(2e-4, 1e-2),
        "freeze": tune.choice(settings["depths"]),
        "augment": tune.choice(["none", "light"]),
        "class_weights": tune.choice(["none", "inverse"]),
    }


def main() -> None:
    settings = read_settings()
    experiment = Path(settings["folder"]) / "stock"
    if tune.Tuner.can_restore(str(experiment)):
        tuner = tune.Tuner.restore(str(experiment), trainable_of(settings), resume_errored=True)
    else:
        tuner = new_tuner(settings)
    results = tuner.fit()
    best = results.get_best_result(metric=METRIC, mode="max", scope="all")
    checkpoint = best.get_best_checkpoint(METRIC, mode="max")
    test = score_on_test(best.config, checkpoint=checkpoint, settings=settings)
    images = [str(Path(path).relative_to(settings["images"])) for path, _ in all_images(settings)]
    summary = {"trials": len(results), "test/balanced_accuracy": test, "images": sorted(images)}
    Path(settings["folder"], "summary.json").write_text(json.dumps(summary))


def read_settings() -> Settings:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "settings", type=Path, help="JSON: images, folder, trials or -1 with seconds, first, max_epochs, reduction, …"
    )
    return json.loads(parser.parse_args().settings.read_text())


def new_tuner(settings: Settings) -> tune.Tuner:
    return tune.Tuner(
        trainable_of(settings),
        param_space=space(settings),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            num_samples=settings["trials"],
            time_budget_s=settings.get("seconds"),
            search_alg=OptunaSearch(points_to_evaluate=settings["first"] or None, seed=settings["seed"]),
            scheduler=ASHAScheduler(
                max_t=settings["max_epochs"],
                grace_period=settings["min_epochs"],
                reduction_factor=settings["reduction"],
            ),
        ),
        run_config=tune.RunConfig(
            name="stock",
            storage_path=settings["folder"],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=METRIC),
            callbacks=[MLflowLoggerCallback(tracking_uri=settings["tracking_uri"], experiment_name="stock")],
        ),
    )


def trainable_of(settings: Settings) -> Callable[[Settings], None]:
    return tune.with_resources(tune.with_parameters(train, settings=settings), {"cpu": 1})


def train(config: Settings, *, settings: Settings) -> None:
    """One trial: resumed from Tune's checkpoint where there is one, saved and reported after every epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    model = create_model(config["freeze"], settings=settings)
    loader = images_loader("train", model, settings=settings, augment=config["augment"])
    validation = images_loader("val", model, settings=settings)
    loss_function = nn.CrossEntropyLoss(weight=class_weights(loader.dataset.targets, rule=config["class_weights"]))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config["lr"], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings["max_epochs"] * len(loader))
    start = load_checkpoint(tune.get_checkpoint(), model=model, optimizer=optimizer, schedule=schedule)
    for epoch in range(start, settings["max_epochs"] + 1):
        train_mode(model, depth=config["freeze"])
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_function(model(images), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        metrics = {"epoch": epoch, "train/loss": total / len(loader), METRIC: score(model, validation)}
        with tempfile.TemporaryDirectory() as folder:
            state = {"epoch": epoch, "model": model.state_dict()}
            state |= {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            torch.save(state, Path(folder, "checkpoint.pt"))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def load_checkpoint(
    checkpoint: tune.Checkpoint | None,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    """The first epoch still to train."""
    if checkpoint is None:
        return 1
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder, "checkpoint.pt"), weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["epoch"] + 1


def create_model(depth: float, *, settings: Settings) -> nn.Module:
    classes = [folder for folder in Path(settings["images"], "train").iterdir() if folder.is_dir()]
    model = timm.create_model(ARCHITECTURE, num_classes=len(classes))
    load_weights(model, source="package:efficientnet-lite0", classifier="classifier", first_conv="conv_stem")
    for module in frozen_modules(model, depth=depth):
        module.requires_grad_(False)
    return model


def frozen_modules(model: nn.Module, *, depth: float) -> list[nn.Module]:
    """The first ``depth`` of the network's 17 layers, a share."""
    layers = [[model.conv_stem, model.bn1], *([block] for stage in model.blocks for block in stage)]
    layers[-1] += [model.conv_head, model.bn2]
    return [module for layer in layers[: int(depth * len(layers) + 1e-9)] for module in layer]


def train_mode(model: nn.Module, *, depth: float) -> None:
    """Train mode, in which the batch norms of frozen layers stay as they are."""
    model.train()
    for module in frozen_modules(model, depth=depth):
        module.eval()


def images_loader(
    split: str, model: nn.Module, *, settings: Settings, augment: str = "none", shuffle: bool | None = None
) -> DataLoader:
    """The images of a split, those of training in another order each time unless ``shuffle`` says otherwise."""
    cfg, size = model.pretrained_cfg, settings["image_size"]
    bicubic = transforms.InterpolationMode.BICUBIC
    if augment == "light":
        steps = [transforms.RandomResizedCrop(size, scale=(0.5, 1.0), interpolation=bicubic)]
        steps += [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()]
    else:
        steps = [transforms.Resize(round(size / cfg["crop_pct"]), bicubic), transforms.CenterCrop(size)]
    steps += [transforms.ToTensor(), transforms.Normalize(cfg["mean"], cfg["std"])]
    folder = ImageFolder(Path(settings["images"], split), transforms.Compose(steps))
    return DataLoader(
        folder,
        batch_size=settings["batch_size"],
        shuffle=split == "train" if shuffle is None else shuffle,
        num_workers=0,
    )


def class_weights(labels: list[int], *, rule: str) -> torch.Tensor | None:
    """None, or 1/n of each class's count n, scaled to mean 1."""
    if rule == "none":
        return None
    weights = torch.bincount(torch.tensor(labels)).float() ** -1
    return weights / weights.mean()


@torch.inference_mode()
def score(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    predictions = torch.cat([model(images).argmax(1) for images, _ in loader])
    return float(balanced_accuracy_score(loader.dataset.targets, predictions))


def score_on_test(config: Settings, *, checkpoint: tune.Checkpoint, settings: Settings) -> float:
    model = create_model(config["freeze"], settings=settings)
    with checkpoint.as_directory() as folder:
        model.load_state_dict(torch.load(Path(folder, "checkpoint.pt"), weights_only=True)["model"])
    return score(model, images_loader("test", model, settings=settings))


def all_images(settings: Settings) -> list[tuple[str, int]]:
    return [
        image for split in ("train", "val", "test") for image in ImageFolder(Path(settings["images"], split)).samples
    ]


if __name__ == "__main__":
    main()
