import pytest

from search.space.lint import lint
from search.space.spec import SearchSpec

LR = {"optimizer.lr": {"log": [1e-4, 1e-2]}}


def notes(*, base=None, vary=None, **sections):
    return lint(
        SearchSpec.model_validate(
            {
                "search": {"name": "demo", "trials": 27},
                "scheduler": {"min_epochs": 3, "max_epochs": 27},
                "base": base or {},
                "vary": LR if vary is None else LR | vary,
            }
            | sections
        )
    )


def test_a_file_to_the_point_has_no_notes():
    assert notes() == []


def test_a_number_of_warm_starts_without_any_is_noted():
    assert notes(search={"name": "demo", "trials": 27, "num_warm": 2}) == [
        "search.num_warm: 2 has no effect without search.warm_start"
    ]
    assert notes(search={"name": "demo", "trials": 27, "num_warm": 2, "warm_start": "auto"}) == []


def test_a_weight_of_teachers_without_any_is_noted():
    assert notes(base={"distill.weight": 0.3}) == ["base.distill.weight: has no effect, distill.teachers names none"]
    assert notes(base={"distill.weight": 0.3, "distill.teachers": ["teacher"]}) == []


def test_choosing_backbones_for_as_long_as_the_search_may_take_is_noted():
    asked = {
        "vary": {"model.name": {"choice": ["resnet18", "resnet50"]}},
        "search": {"name": "demo", "budget": {"hours": 1}},
    }
    assert notes(**asked, select_backbones={"minutes": 60.0}) == [
        "select_backbones.minutes: 60 leaves nothing of search.budget: 60 minutes"
    ]
    assert notes(**asked, select_backbones={"minutes": 10.0}) == []


def test_finishing_that_does_nothing_or_makes_a_limit_another_is_noted():
    nothing = {"augment.flip": "none", "augment.rotate": "none"}
    line = "finish: views has no effect, augment.flip and augment.rotate allow no other view of an image"
    assert notes(base=nothing, finish=["views", "calibration"]) == [line]
    domains = {"data.format": "elpv", "data.source": ["mono"], "data.target": "poly"}
    other = "finish: interpolation, views has no effect with data.target, whose images are of another domain"
    assert other in notes(base=domains, finish=["interpolation", "views", "calibration"])
    assert not any(note.startswith("finish") for note in notes(base=domains, finish=["calibration"]))
    (useless,) = notes(search={"name": "x", "trials": 9, "metric": "val/loss"}, finish=["class_weights"])
    assert useless == "finish: class_weights has no effect, no weights of classes serve search.metric: val/loss"
    (other_metric,) = notes(search={"name": "x", "trials": 9, "metric": "val/macro_f1"}, finish=["class_weights"])
    assert other_metric.endswith(
        "serve search.metric: val/macro_f1, a promotion goes by promote.metric: balanced_accuracy"
    )
    from_nothing = "finish: interpolation has no effect, no trial trains a backbone that was trained before"
    for base in ({"finetune.strategy": "linear_probe"}, {"model.weights": "random"}):
        assert from_nothing in notes(base=base, finish=["interpolation"])
    assert notes(finish=["interpolation"]) == []
    limited = {"name": "demo", "trials": 27, "constraints": {"usage/latency_ms": 20}}
    (slower,) = notes(search=limited, finish=["views"])
    assert slower.startswith("finish: views may take 2 times as long as search.constraints' usage/latency_ms")


DECAY = {"optimizer.layer_decay": {"uniform": [0.5, 1.0]}}
MULTIPLIER = {"optimizer.backbone_multiplier": {"log": [0.1, 1.0]}}
BN = {"freeze.bn": {"choice": ["eval", "train_all"]}}
FLIP = {"augment.flip": {"choice": ["none", "both"]}}
ROTATE = {"augment.rotate": {"choice": ["none", "quarter"]}}
HIDDEN = {"model.head_hidden": {"int": [8, 64]}}
MIX = {"augment.mix_probability": {"uniform": [0.5, 1.0]}}
FROZEN = "has no effect, the whole backbone is frozen"
UNMIXED = "has no effect, augment.mixup and augment.cutmix are 0"


@pytest.mark.parametrize(
    ("base", "vary", "line"),
    [
        ({"freeze.depth": 1.0}, DECAY, f"vary.optimizer.layer_decay: {FROZEN}"),
        ({"freeze.depth": "stage4"}, DECAY, f"vary.optimizer.layer_decay: {FROZEN}"),
        ({"freeze.depth": []}, MULTIPLIER, f"vary.optimizer.backbone_multiplier: {FROZEN}"),
        ({"freeze.depth": 1.0, "optimizer.layer_decay": 0.7}, {}, f"base.optimizer.layer_decay: {FROZEN}"),
        (
            {},
            {
                "freeze.depth": {"choice": [0.5, 1.0]},
                "optimizer.layer_decay": {"uniform": [0.5, 1.0], "when": {"freeze.depth": 1.0}},
            },
            f"vary.optimizer.layer_decay: {FROZEN}",
        ),
        ({}, BN, "vary.freeze.bn: has no effect, nothing is frozen"),
        ({"augment.strength": "none"}, FLIP, "vary.augment.flip: has no effect, augment.strength is none"),
        (
            {"data.channels": 4, "augment.auto": "trivial"},
            {},
            "base.augment.auto: has no effect, data.channels is neither 1 nor 3",
        ),
        ({"augment.strength": "none"}, ROTATE, "vary.augment.rotate: has no effect, augment.strength is none"),
        (
            {},
            FLIP | {"augment.strength": {"choice": ["none", "light", "strong"]}},
            "vary.augment.flip: has no effect where augment.strength is none; add when: {augment.strength: [light, strong]}",
        ),
        (
            {"finetune.strategy": "full", "freeze.depth": 0.5},
            {},
            "base.freeze.depth: has no effect, finetune.strategy decides what is frozen",
        ),
        (
            {"finetune.strategy": "linear_probe"},
            DECAY,
            "vary.optimizer.layer_decay: has no effect, finetune.strategy is linear_probe",
        ),
        (
            {},
            {"finetune.strategy": {"choice": ["full", "gradual"]}, "finetune.every": {"int": [1, 3]}},
            "vary.finetune.every: has no effect where finetune.strategy is not gradual; add when: {finetune.strategy: gradual}",
        ),
        (
            {"lr_schedule.factor": 0.5},
            {},
            "base.lr_schedule.factor: has no effect, lr_schedule.name is not step or plateau",
        ),
        ({"loss.focal_gamma": 1.0}, {}, "base.loss.focal_gamma: has no effect, loss.name is not focal"),
        ({"train.ema_start": 2}, {}, "base.train.ema_start: has no effect, train.ema is 0"),
        ({}, HIDDEN, "vary.model.head_hidden: has no effect, model.head is not mlp"),
        (
            {},
            HIDDEN | {"model.head": {"choice": ["linear", "mlp"]}},
            "vary.model.head_hidden: has no effect where model.head is not mlp; add when: {model.head: mlp}",
        ),
        ({}, MIX, f"vary.augment.mix_probability: {UNMIXED}"),
        ({"augment.mix_probability": 0.5}, {}, f"base.augment.mix_probability: {UNMIXED}"),
        (
            {"augment.mixup": 0.2, "augment.mix_probability": 0},
            {},
            "base.augment.mixup: has no effect, augment.mix_probability is 0",
        ),
        ({"data.elpv_rule": "prob>0"}, {}, "base.data.elpv_rule: has no effect, data.format is not elpv"),
        ({"data.format": "elpv", "data.path": "x"}, {}, "base.data.path: has no effect, data.format is elpv"),
        (
            {"data.format": "folder", "data.group_column": "cell"},
            {},
            "base.data.group_column: has no effect, data.format has no columns",
        ),
        (
            {"lr_schedule.warmup_start": 0.1},
            {},
            "base.lr_schedule.warmup_start: has no effect, lr_schedule.warmup_epochs is 0",
        ),
        (
            {"lr_schedule.warmup_epochs": 5},
            {},
            "base.lr_schedule.warmup_epochs: 5 is longer than scheduler.min_epochs: 3, where trials are judged",
        ),
        (
            {},
            {"lr_schedule.warmup_epochs": {"int": [0, 5]}},
            "vary.lr_schedule.warmup_epochs: 5 is longer than scheduler.min_epochs: 3, where trials are judged",
        ),
        ({"train.patience": 27}, {}, "base.train.patience: has no effect, 27 is not below scheduler.max_epochs: 27"),
        ({}, {"model.dropout": {"choice": [0.1]}}, "vary.model.dropout: has the single value 0.1; give it in base"),
    ],
)
def test_what_has_no_effect_is_named(base, vary, line):
    assert notes(base=base, vary=vary) == [line]


@pytest.mark.parametrize(
    ("base", "vary"),
    [
        ({"freeze.depth": 0.75}, DECAY | MULTIPLIER | BN),
        ({}, DECAY | BN | {"freeze.depth": {"choice": [0, 0.5, 1.0]}}),
        ({}, BN | {"freeze.depth": {"uniform": [0.0, 1.0]}}),
        ({}, {"optimizer.momentum": {"uniform": [0.8, 0.95]}}),
        ({}, FLIP | ROTATE),
        ({"model.head": "mlp"}, HIDDEN),
        ({"augment.cutmix": 1.0}, MIX),
        ({}, MIX | {"augment.mixup": {"choice": [0.0, 0.2]}}),
        ({"data.format": "elpv", "data.elpv_rule": "prob>0"}, {}),
        ({"data.group_column": "cell"}, {}),
        ({"lr_schedule.warmup_epochs": 3}, {}),
        (
            {},
            {
                "model.head": {"choice": ["linear", "mlp"]},
                "model.head_hidden": {"int": [8, 64], "when": {"model.head": "mlp"}},
            },
        ),
    ],
)
def test_what_has_an_effect_is_left_alone(base, vary):
    assert notes(base=base, vary=vary) == []


@pytest.mark.parametrize(
    "strategy", ["linear_probe", "bias_only", "surgical", "gradual", "lp_ft", "lora", "dora", "adapter"]
)
def test_norms_rest_under_strategies_that_leave_layers_as_they_are_whatever_the_depth(strategy):
    assert notes(base={"finetune.strategy": strategy}, vary=BN) == []
    either = {"finetune.strategy": {"choice": ["partial", strategy]}}
    assert notes(vary=BN | either) == []


def test_norms_of_each_domains_own_that_rest_beside_adapters_are_named():
    base = {"data.path": "here", "data.target": "there", "adapt.method": "dsbn", "finetune.strategy": "lora"}
    line = "base.adapt.method: dsbn has nothing to move, norm layers rest beside adapters; set finetune.beside: norms"
    assert notes(base=base) == [line]
    assert notes(base=base | {"finetune.beside": "norms"}) == []
    assert notes(base=base | {"freeze.bn": "train_stats"}) == []
    assert notes(base=base | {"finetune.strategy": "partial"}) == []


def test_what_updates_read_and_epochs_beyond_the_first_are_named_where_the_head_is_solved_for():
    base = {"finetune.strategy": "linear_probe", "finetune.solver": "closed_form", "loss.label_smoothing": 0.1}
    assert sorted(notes(base=base, vary={"finetune.probe_c": {"log": [0.01, 1]}})) == [
        "base.loss.label_smoothing: has no effect, finetune.solver is not gradient",
        "scheduler.max_epochs: 27 has no effect beyond 1, finetune.solver solves in one epoch",
        "vary.optimizer.lr: has no effect, finetune.solver is not gradient",
    ]
    vary = {"finetune.solver": {"choice": ["gradient", "lbfgs"]}}
    assert notes(base={"finetune.strategy": "linear_probe"}, vary=vary) == [
        "vary.optimizer.lr: has no effect where finetune.solver is not gradient; add when: {finetune.solver: gradient}"
    ]


def test_what_is_never_active_together_takes_no_effect_away():
    solved = {"finetune.strategy": "linear_probe"}
    vary = {
        "finetune.strategy": {"choice": ["linear_probe", "partial"]},
        "finetune.solver": {"choice": ["lbfgs", "closed_form"], "when": solved},
        "finetune.probe_c": {"log": [0.01, 1], "when": solved},
        "freeze.depth": {"choice": [0.5, 1.0], "when": {"finetune.strategy": "partial"}},
        "optimizer.lr": {"log": [1e-4, 1e-2], "when": {"finetune.strategy": "partial"}},
    }
    assert notes(vary=vary) == []


def test_a_conditional_value_has_its_fixed_value_elsewhere():
    vary = {
        "augment.strength": {"choice": ["light", "strong"]},
        "freeze.depth": {"choice": [0.5, 0.75], "when": {"augment.strength": "light"}},
        "optimizer.layer_decay": {"uniform": [0.5, 1.0], "when": {"augment.strength": "strong"}},
    }
    assert notes(base={"freeze.depth": 1.0}, vary={key: vary[key] for key in ("augment.strength",)} | DECAY) == [
        f"vary.optimizer.layer_decay: {FROZEN}"
    ]
    assert notes(vary=vary) == []


def test_one_rung_stops_nobody():
    assert notes(scheduler={"min_epochs": 9, "max_epochs": 9}) == [
        "scheduler.min_epochs: equals max_epochs (9), so no trial is ever stopped early"
    ]
    assert notes(scheduler={"name": "none", "min_epochs": 9, "max_epochs": 9}) == []


def test_too_few_trials_for_the_top_are_noted():
    line = (
        "search.trials: 8 are too few for one to be promoted to epoch 27, which takes 9; "
        "only the finalists are trained to the end"
    )
    assert notes(search={"name": "demo", "trials": 8}) == [line]
    assert notes(search={"name": "demo", "trials": 9}) == []
    assert notes(search={"name": "demo", "trials": 8}, scheduler={"max_epochs": 27, "mode": "stop"}) == []


def test_a_model_that_is_never_asked_is_noted():
    assert notes(sampler={"startup": 27}) == ["sampler.startup: 27 is not below search.trials: 27; tpe is never asked"]
    assert notes(sampler={"name": "random", "startup": 27}) == []


def test_a_search_of_nothing_is_noted():
    assert notes(vary={}, base={}) == []
    found = lint(SearchSpec.model_validate({"search": {"name": "a", "trials": 9}, "scheduler": {"max_epochs": 27}}))
    assert found == ["vary: nothing is searched, so all of search.trials: 9 are the same trial"]


ADAPTING = {"data.format": "elpv", "data.target": "poly"}


@pytest.mark.parametrize(
    ("base", "vary", "lines"),
    [
        ({"freeze.depth": 1.0}, {"adapt.method": {"choice": ["none", "adabn", "fda", "mcc"]}}, []),
        (
            {"freeze.depth": 1.0},
            {"adapt.method": {"choice": ["none", "dann", "mmd"]}},
            ["vary.adapt.method: dann and mmd have nothing to move, the whole backbone is frozen"],
        ),
        ({}, {"adapt.method": {"choice": ["dann", "mmd"]}, "freeze.depth": {"choice": [0.5, 1.0]}}, []),
        (
            {},
            {"adapt.method": {"choice": ["none", "mcc"]}, "adapt.weight": {"log": [0.1, 1.0]}},
            [
                "vary.adapt.weight: has no effect where adapt.method is not dann or cdan or mmd or coral or mcc or adversarial "
                "or fda; add when: {adapt.method: mcc}"
            ],
        ),
        (
            {"adapt.method": "mmd", "adapt.hidden": 64},
            {},
            ["base.adapt.hidden: has no effect, adapt.method is not dann or cdan or adversarial"],
        ),
        (
            {"adapt.method": "dann", "adapt.ganin_gamma": 5.0},
            {},
            ["base.adapt.ganin_gamma: has no effect, adapt.schedule is not ganin"],
        ),
    ],
)
def test_what_adapting_cannot_use_is_named(base, vary, lines):
    assert notes(base=ADAPTING | base, vary=vary) == lines


@pytest.mark.parametrize(
    ("scheduler", "lines"),
    [
        (
            {"name": "freeze_thaw", "mode": "stop"},
            ["scheduler.mode: stop has no effect, scheduler.name is freeze_thaw, not asha"],
        ),
        ({"name": "none", "mode": "stop"}, ["scheduler.mode: stop has no effect, scheduler.name is none, not asha"]),
        (
            {"name": "asha", "cost": "epochs"},
            ["scheduler.cost: epochs has no effect, scheduler.name is asha, not freeze_thaw"],
        ),
        ({"name": "asha", "mode": "stop"}, []),
        ({"name": "freeze_thaw", "cost": "epochs"}, []),
    ],
)
def test_what_another_scheduler_alone_reads_is_noted(scheduler, lines):
    assert notes(scheduler={"min_epochs": 3, "max_epochs": 27} | scheduler) == lines


def test_a_space_of_one_point_is_noted_without_a_number_of_trials_too():
    document = {"search": {"name": "demo", "budget": {"minutes": 5}}, "scheduler": {"max_epochs": 27}, "vary": {}}
    assert lint(SearchSpec.model_validate(document)) == ["vary: nothing is searched, so all trials are the same trial"]


def test_the_names_of_classes_are_read_by_a_text_head_and_by_zero_shot_alone():
    base = {"finetune.class_names": {"n01": "fish"}}
    line = "base.finetune.class_names: has no effect, model.head is not text"
    assert line in notes(base=base)
    assert line not in notes(base=base, baselines=["zero_shot"])
    assert line not in notes(base=base | {"model.head": "text"})
