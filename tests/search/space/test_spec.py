import json

import pytest
from pydantic import ValidationError

from search.space.identity import identity_difference
from search.space.spec import SearchSpec, difference
from trainable.config.validation import explain, leaf_fields


def document(**sections):
    return {
        "search": {"name": "demo", "trials": 8},
        "scheduler": {"max_epochs": 9},
        "base": {"data": {"path": "images"}, "model.name": "resnet18"},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-2]}, "freeze.depth": {"choice": [0, ["stage4"]]}},
    } | sections


def spec(**sections):
    return SearchSpec.model_validate(document(**sections))


def mistakes(**sections):
    with pytest.raises(ValidationError) as caught:
        spec(**sections)
    return explain(caught.value, model=SearchSpec)


def test_the_least_file_has_the_documented_defaults():
    made = spec()
    assert (made.search.metric, made.search.seed, made.search.folder, made.search.max_failures) == (
        "val/balanced_accuracy", 0, "searches", 3,
    )  # fmt: skip
    assert (made.sampler.name, made.sampler.random_share, made.sampler.startup) == ("tpe", 0.2, None)
    assert (made.scheduler.name, made.scheduler.mode, made.scheduler.min_epochs) == ("asha", "promote", 3)
    assert (made.scheduler.reduction, made.scheduler.finalists) == (3, 1)
    assert (made.resources.cpu, made.resources.gpu, made.resources.concurrency) == (1, 0, None)
    assert (made.tracking.uri, made.tracking.experiment) == ("sqlite:///mlflow.db", None)


def test_a_trial_is_base_and_params_and_what_the_search_sets():
    made = spec(search={"name": "demo", "trials": 8, "seed": 5, "metric": "val/loss"})
    assert made.trial_config({"optimizer.lr": 0.002, "freeze.depth": ["stage4"]}) == {
        "seed": 5,
        "data": {"path": "images"},
        "model": {"name": "resnet18"},
        "optimizer": {"lr": 0.002},
        "freeze": {"depth": ["stage4"]},
        "train": {"epochs": 9, "metric": "val/loss"},
    }
    config = made.validated({"optimizer.lr": 0.002})
    assert (config.optimizer.lr, config.train.epochs, config.seed, config.model.name) == (0.002, 9, 5, "resnet18")


def test_base_reads_the_same_in_sections_and_by_dotted_path():
    assert (
        spec(base={"model": {"name": "a", "head": "mlp"}}).base
        == spec(base={"model.name": "a", "model.head": "mlp"}).base
    )


def test_a_spec_survives_json():
    made = spec(try_first=[{"optimizer.lr": 0.001}], resources={"gpu": "auto"})
    again = SearchSpec.model_validate(json.loads(json.dumps(made.model_dump(mode="json"))))
    assert again == made
    assert again.content_hash() == made.content_hash()
    assert difference(made, again) == []


def test_what_may_change_on_resuming_makes_no_other_search():
    other = spec(
        search={
            "name": "other",
            "trials": 80,
            "folder": "f",
            "max_failures": 1,
            "max_losses": 1,
            "epoch_limit_minutes": 5.0,
            "budget": {"epochs": 5},
            "confirm": 2,
            "tolerance": 0.01,
        },
        resources={"cpu": 4, "gpu": 0.5, "concurrency": 2},
        tracking={"uri": "sqlite:///x.db"},
        baselines=["linear_probe"],
        base={"data": {"path": "images", "workers": 4, "cache": "c"}, "model.name": "resnet18"},
    )
    assert difference(spec(), other) == []
    assert other.content_hash() == spec().content_hash()


def test_what_is_known_beforehand_makes_no_other_search():
    vary = {"optimizer.lr": {"log": [1e-4, 1e-2]}, "model.dropout": {"choice": [0.0, 0.2]}}
    known = {path: raw | {"prior": value} for (path, raw), value in zip(vary.items(), (1e-3, 0.2), strict=True)}
    assert difference(spec(vary=vary), spec(vary=known)) == []
    assert spec(vary=known).space.has_priors
    assert not spec(vary=vary).space.has_priors


def test_constraints_make_another_search_and_none_is_as_before():
    limited = spec(search={"name": "demo", "trials": 8, "constraints": {"model/parameters": 5e6}})
    plain = spec(search={"name": "demo", "trials": 8})
    assert difference(plain, limited) == ['search.constraints: absent -> {"model/parameters": 5000000}']
    assert "search.constraints" not in plain.identity()


@pytest.mark.parametrize(
    ("constraints", "line"),
    [
        (
            {"model/parameter": 5e6},
            "search.constraints: 'model/parameter' is not measured; did you mean 'model/parameters'?",
        ),
        ({"flops": 5e6}, "search.constraints: 'flops' is not measured; known: model/parameters, usage/latency_ms"),
        ({"usage/latency_ms": 0}, "search.constraints: usage/latency_ms: got 0.0, must be above 0"),
        ({"usage/latency_ms": "20"}, "search.constraints: got '20', must be a mapping from text to a number"),
    ],
)
def test_a_wrong_constraint_is_one_line(constraints, line):
    assert mistakes(search={"name": "demo", "trials": 8, "constraints": constraints}) == [line]


def test_a_prior_goes_with_the_member_that_it_names():
    names = {"choice": ["resnet10t", "resnet18"], "prior": "resnet18", "confidence": "low"}
    whole = spec(base={"data.path": "images"}, vary={"model.name": names})
    assert whole.with_choices("model.name", ["resnet18"]).vary["model.name"] == names | {"choice": ["resnet18"]}
    assert whole.with_choices("model.name", ["resnet10t"]).vary["model.name"] == {"choice": ["resnet10t"]}


def test_how_numbers_and_defaults_are_written_makes_no_other_search():
    other = spec(base={"model": {"name": "resnet18", "head": "linear", "dropout": 0}, "data.path": "images"})
    assert difference(spec(), other) == []
    assert other.content_hash() == spec().content_hash()


def test_differences_are_told_by_path():
    other = spec(
        search={"name": "demo", "trials": 8, "seed": 1},
        scheduler={"max_epochs": 27},
        base={"data.path": "images", "model.name": "resnet50"},
        vary={"optimizer.lr": {"log": [1e-4, 1e-1]}, "model.dropout": {"choice": [0.0, 0.2]}},
    )
    assert difference(spec(), other) == [
        "base.model.name: 'resnet18' -> 'resnet50'",
        "scheduler.max_epochs: 9 -> 27",
        "search.seed: 0 -> 1",
        'vary.freeze.depth: {"choice": [0, ["stage4"]]} -> absent',
        'vary.model.dropout: absent -> {"choice": [0, 0.2]}',
        'vary.optimizer.lr: {"log": [0.0001, 0.01]} -> {"log": [0.0001, 0.1]}',
    ]
    assert other.content_hash() != spec().content_hash()


def test_conditions_on_fixed_values_are_settled():
    varied = {"model.head_hidden": {"int": [8, 64], "when": {"model.head": "mlp"}}}
    assert spec(base={"model.head": "mlp"}, vary=varied).space.plain() == {"model.head_hidden": {"int": [8, 64]}}
    assert mistakes(vary=varied) == [
        "vary.model.head_hidden.when.model.head: can never hold, model.head is 'linear' and not varied"
    ]


DEPTH = "a number at least 0, at most 1 or one of stem, stage1, stage2, stage3, stage4"
DEPTH = f"{DEPTH} or a list of stem, stage1, stage2, stage3, stage4"


@pytest.mark.parametrize(
    ("sections", "lines"),
    [
        ({"serach": {}}, ["serach: unknown key; did you mean 'search'?"]),
        (
            {"search": {"name": "demo"}},
            [
                "search.trials: missing; give how many are begun, or a search.budget of minutes, hours, gpu_hours or epochs"
            ],
        ),
        ({"search": {"name": "a b", "trials": 1}}, ["search.name: got 'a b', must be text such as 'resnet-1'"]),
        (
            {
                "search": {"name": "a", "trials": 1, "storage": "postgresql+psycopg://u@h/d"},
                "tracking": {"uri": "postgresql://v:secret@h:5432/d"},
            },
            ["search.storage: is the database of tracking.uri; each needs one of its own"],
        ),
        (
            {"search": {"name": "a", "trials": 1, "storage": "sqlite:///x"}},
            ["search.storage: got 'sqlite:///x', must be text such as 'postgresql://user@host/database'"],
        ),
        (
            {"search": {"name": "a", "trials": 1, "budget": {"gpu_hours": 0}}},
            ["search.budget.gpu_hours: got 0, must be a number above 0 or null"],
        ),
        (
            {"search": 5},
            [
                "search: got 5, must be a section with name, metric, choose_by, trials, seed, budget, confirm, tolerance, "
                "folder, storage, warm_start, num_warm, constraints, max_failures, epoch_limit_minutes, max_losses"
            ],
        ),
        ({"scheduler": {"max_epochs": 2}}, ["scheduler.min_epochs: 3 is above max_epochs: 2"]),
        (
            {"scheduler": {"max_epochs": "9"}},
            ["scheduler.max_epochs: got '9', must be a whole number at least 1, at most 1000"],
        ),
        (
            {"sampler": {"name": "ptpe"}},
            ["sampler.name: got 'ptpe', must be one of tpe, random, gp; did you mean 'tpe'?"],
        ),
        ({"resources": {"gpu": 1.5}}, ["resources.gpu: got 1.5, must be a share from 0 to 1, a whole number, or auto"]),
        (
            {"resources": {"gpu": "aut"}},
            ["resources.gpu: got 'aut', must be a number at least 0 or auto; did you mean 'auto'?"],
        ),
        (
            {"baselines": ["probe"]},
            [
                "baselines: got 'probe', must be a list of linear_probe, stage_probes, zero_shot, scratch, "
                "bit_hyperrule, source_only"
            ],
        ),
        ({"base": {"optimizer": {"lrr": 1}}}, ["base.optimizer.lrr: unknown path; did you mean 'optimizer.lr'?"]),
        ({"base": {"modle": {"name": "x"}}}, ["base.modle: unknown path; did you mean 'model'?"]),
        ({"base": {"model": "resnet18"}}, ["base.model: is a section; give one of its values, such as model.name"]),
        ({"base": {"optimizer": {"lr": 1}, "optimizer.lr": 2}}, ["base: optimizer.lr is given twice"]),
        (
            {"base": {"optimizer": {"weight_decay": 2}}},
            ["base.optimizer.weight_decay: got 2, must be a number at least 0, at most 1"],
        ),
        ({"base": {"train.epochs": 5}}, ["base.train.epochs: is set by the search; give scheduler.max_epochs"]),
        ({"base": {"train": {"metric": "val/loss"}}}, ["base.train.metric: is set by the search; give search.metric"]),
        ({"base": {"seed": 1}}, ["base.seed: is set by the search; give search.seed"]),
        (
            {"base": {"lr_schedule.warmup_epochs": 9}},
            ["base.lr_schedule.warmup_epochs: 9.0 does not fit into train.epochs: 9"],
        ),
        ({"base": {"optimizer.lr": 1e-3}}, ["vary.optimizer.lr: is also in base; give it once, or search it `when:`"]),
        (
            {"vary": {"optimizer.lrr": {"log": [1, 2]}}},
            ["vary.optimizer.lrr: unknown path; did you mean 'optimizer.lr'?"],
        ),
        (
            {"vary": {"optimizer": {"lr": {"log": [1, 2]}}}},
            ["vary.optimizer: is a section; give one of its values, such as optimizer.name"],
        ),
        (
            {"vary": {"train.epochs": {"int": [1, 2]}}},
            ["vary.train.epochs: is set by the search; give scheduler.max_epochs"],
        ),
        (
            {"vary": {"optimizer.lr": {"log": [1e-5, 100]}}},
            ["vary.optimizer.lr: got 100.0, must be a number above 0, at most 10"],
        ),
        (
            {"vary": {"optimizer.layer_decay": {"uniform": [0, 1]}}},
            ["vary.optimizer.layer_decay: got 0.0, must be a number above 0, at most 1"],
        ),
        (
            {"vary": {"train.accumulate": {"uniform": [1, 8]}}},
            [f"vary.train.accumulate: got {x}, must be a whole number at least 1, at most 256" for x in (1.0, 8.0)],
        ),
        (
            {"vary": {"augment.strength": {"choice": ["none", "lite"]}}},
            [
                "vary.augment.strength: got 'lite', must be one of none, symmetries, light, medium, strong; did you mean 'light'?"
            ],
        ),
        ({"vary": {"freeze.depth": {"choice": [1.5]}}}, [f"vary.freeze.depth: got 1.5, must be {DEPTH}"]),
        ({"vary": {"freeze.depth": {"choice": [["stage9"]]}}}, [f'vary.freeze.depth: got ["stage9"], must be {DEPTH}']),
        (
            {"vary": {"lr_schedule.warmup_epochs": {"int": [0, 9]}}},
            ["vary.lr_schedule.warmup_epochs: 9.0 does not fit into train.epochs: 9"],
        ),
        (
            {"vary": {"augment.flip": {"choice": ["none"], "when": {"augment.strenght": "light"}}}},
            ["vary.augment.flip.when.augment.strenght: unknown path; did you mean 'augment.strength'?"],
        ),
        (
            {
                "vary": {
                    "augment.strength": {"choice": ["none"]},
                    "augment.flip": {"choice": ["none"], "when": {"augment.strength": "light"}},
                }
            },
            ["vary.augment.flip.when.augment.strength: 'light' is outside 'none'"],
        ),
        ({"try_first": [{"optimizer.lr": 1.0}]}, ["try_first.0.optimizer.lr: 1.0 is outside 0.0001 to 0.01"]),
        (
            {"try_first": [{}, {"optimizer.l": 1}]},
            ["try_first.1.optimizer.l: is not varied; did you mean 'optimizer.lr'?"],
        ),
        (
            {
                "vary": {
                    "data.class_sampling": {"choice": ["shuffle", "balanced"]},
                    "loss.class_weights": {"choice": ["none", "inverse"]},
                }
            },
            [
                "vary.data.class_sampling: 'balanced' and loss.class_weights: 'inverse' exclude each other; use one; search "
                "one of them only where the other allows it (`when:`)"
            ],
        ),
        (
            {"vary": {"finetune.strategy": {"choice": ["partial", "gradul"]}}},
            [
                "vary.finetune.strategy: got 'gradul', must be one of partial, full, scratch, linear_probe, norm_only, "
                "bias_only, surgical, gradual, lp_ft, two_stage, lora, dora, adapter, prompt; did you mean 'gradual'?"
            ],
        ),
        ({"try_first": [5]}, ["try_first: got 5, must be a list of a mapping of dotted paths"]),
        (
            {"search": {"name": "a", "trials": 0}, "sampler": {"nam": "tpe"}},
            [
                "search.trials: got 0, must be a whole number at least 1 or null",
                "sampler.nam: unknown key; did you mean 'name'?",
            ],
        ),
    ],
)
def test_a_mistake_is_one_line_with_what_would_be_right(sections, lines):
    found = mistakes(**sections)
    assert found == lines
    assert all("\n" not in line for line in found)


def test_two_wrong_dimensions_are_both_told():
    assert mistakes(vary={"optimizer.lr": {"log": [2, 1]}, "optimizer.momentum": {"choice": []}}) == [
        "vary.optimizer.lr: upper bound 1 is below lower bound 2",
        "vary.optimizer.momentum.choice: is empty, must list at least one value",
    ]


def test_every_field_says_what_it_is():
    fields = leaf_fields(SearchSpec)
    assert len(fields) > 25
    assert [path for path, field in fields.items() if not field.description] == []


def test_values_that_exclude_each_other_may_be_searched_under_a_condition():
    made = spec(
        vary={
            "data.class_sampling": {"choice": ["shuffle", "balanced"]},
            "loss.class_weights": {"choice": ["none", "inverse"], "when": {"data.class_sampling": "shuffle"}},
        }
    )
    assert len(made.space.dimensions) == 2


BACKBONES = {
    "ssl": {"epochs": 2, "weights": "random"},
    "select_backbones": {"keep": 1},
    "base": {"model.weights": "random"},
    "vary": {
        "model.name": {"choice": ["resnet18", "resnet10t"]},
        "model.weights": {"choice": ["random", "ssl"], "when": {"model.name": "resnet18"}},
        "optimizer.lr": {"log": [1e-3, 1e-2], "when": {"model.weights": "ssl"}},
    },
    "try_first": [{"model.name": "resnet18"}, {"model.name": "resnet10t"}],
}


def test_fewer_choices_take_what_hangs_on_the_others_with_them():
    whole = spec(**BACKBONES)
    kept = whole.with_choices("model.name", ["resnet18"])
    assert set(kept.vary) == set(whole.vary)
    assert kept.ssl == whole.ssl
    left = whole.with_choices("model.name", ["resnet10t"])
    assert set(left.vary) == {"model.name"}
    assert left.ssl is None
    assert left.try_first == [{"model.name": "resnet10t"}]


def test_a_step_stands_for_its_weights_under_the_searchs_own_folder():
    made = spec(**BACKBONES)
    assert made.step_backbones("ssl") == {"resnet18"}
    config = made.validated({"model.name": "resnet18", "model.weights": "ssl"})
    assert config.model.weights == "searches/demo/ssl/backbone.safetensors"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"ssl": None}, "ssl: missing, model.weights: ssl needs it"),
        (
            {"meta": {"path": "images"}},
            "meta: nothing begins with its weights; add meta to the choices of model.weights",
        ),
        (
            {"vary": BACKBONES["vary"] | {"model.weights": {"choice": ["pretrained", "ssl"]}}, "base": {}},
            "ssl: trains one backbone, model.weights: ssl is searched with resnet10t, resnet18; add a `when:`",
        ),
        (
            {"vary": {"model.weights": {"choice": ["random", "ssl"]}}, "base": {}, "try_first": []},
            "select_backbones: nothing to select from; give model.name as a choice in vary",
        ),
    ],
)
def test_a_step_or_a_selection_that_fits_nothing_is_one_line(changes, line):
    assert mistakes(**BACKBONES | changes) == [line]


def test_a_value_that_came_later_is_its_default_in_what_was_written_before():
    now = {"base.data.background": "black", "base.data.channels": 3}
    assert identity_difference({"base.data.channels": 3}, now) == []
    assert identity_difference({"base.data.channels": 3}, now | {"base.data.background": "white"}) == [
        "base.data.background: absent -> 'white'"
    ]
    assert identity_difference({"vary.optimizer.lr": 1}, {}) == ["vary.optimizer.lr: 1 -> absent"]


def test_where_images_lie_makes_no_other_search():
    document = {
        "search": {"name": "cells", "trials": 1},
        "scheduler": {"min_epochs": 1, "max_epochs": 1},
        "base": {"data": {"path": "list.csv", "images": "here"}},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
    }
    moved = document | {"base": {"data": {"path": "far/list.csv", "images": "there"}}}
    assert difference(SearchSpec.model_validate(document), SearchSpec.model_validate(moved)) == []
