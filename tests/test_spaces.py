from pathlib import Path

import optuna
import pytest
import timm
from optuna.samplers import RandomSampler

from search.space.lint import lint
from search.space.loading import load

FILES = sorted((Path(__file__).parents[1] / "spaces").glob("*.yaml"))

optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_the_spaces_are_those_the_documents_name():
    names = [
        "adaptation",
        "backbones",
        "convnext",
        "efficientnet",
        "elpv",
        "foundation",
        "mobilenet",
        "quickstart",
        "resnet",
        "vit",
    ]
    assert [file.stem for file in FILES] == names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_space_is_to_the_point(file):
    assert lint(load(file)) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_space_says_what_it_is_for_what_it_costs_and_what_it_varies(file):
    head = file.read_text().split("search:")[0]
    for wanted in (f"python -m search run spaces/{file.name}", "# Cost ", "# Varies "):
        assert wanted in head


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_space_is_called_as_its_file(file):
    assert load(file).search.name == file.stem


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_whatever_is_drawn_is_a_valid_trial(file):
    spec = load(file)
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    drawn = [spec.space.suggest(study.ask()) for _ in range(200)]
    configs = [spec.validated(params) for params in drawn]
    assert all(spec.space.contains(params) for params in drawn)
    assert {config.train.epochs for config in configs} == {spec.scheduler.max_epochs}
    assert set().union(*drawn) == set(spec.space.dimensions)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_recipes_are_valid_trials(file):
    spec = load(file)
    assert spec.try_first
    for recipe in spec.try_first:
        spec.validated(recipe)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_own_images_can_be_given(file):
    config = load(file, data="my/images").validated({})
    assert (config.data.path, config.data.format) == ("my/images", "auto")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_backbone_is_one_of_timms(file):
    spec = load(file)
    dimension = spec.space.dimensions.get("model.name")
    names = [spec.base["model.name"]] if dimension is None else dimension.members
    known = set(timm.list_models()) | set(timm.list_pretrained())
    assert set(names) <= known
