import pytest

from search.diagnosis.decisions import (
    CANDIDATES,
    FEWEST,
    MOST,
    choose_backbone,
    choose_bounds,
    choose_promotion,
    choose_sample,
    describe_size,
    describe_training,
    in_time,
    passes_within,
)
from search.space.loading import parse_override
from search.space.overrides import apply_override
from search.space.promotion_sections import ConfirmSection
from trainable.diagnosis.advice import advice
from trainable.diagnosis.diagnose import Diagnosis, Lead, StageScores
from trainable.statistics.scores import Evaluation

PACKAGE = {"model.name": "tf_efficientnet_lite0", "model.weights": "package:efficientnet-lite0"}
RESNET = {"resnet50": "resnet50.a1_in1k: in the cache, 102 MB"}
CONVNEXT = {"convnext_tiny": "convnext_tiny.in12k: in the cache, 114 MB"}
TASK = {"num_images": 700, "num_classes": 2, "gmacs": 4.0, "device": "cpu", "cpus": 2, "minutes": 20}


@pytest.mark.parametrize(
    ("asked", "device", "at_hand", "package", "chosen"),
    [
        ({}, "cpu", RESNET, PACKAGE, ("resnet50", "pretrained")),
        ({}, "gpu", RESNET | CONVNEXT, PACKAGE, ("convnext_tiny", "pretrained")),
        ({}, "cpu", {}, PACKAGE, ("tf_efficientnet_lite0", "package:efficientnet-lite0")),
        ({}, "gpu", {}, None, ("convnext_tiny", "pretrained")),
        ({"model.name": "vit_tiny_patch16_224"}, "cpu", RESNET, PACKAGE, ("vit_tiny_patch16_224", "pretrained")),
        ({"model.weights": "random"}, "cpu", RESNET, PACKAGE, ("tf_efficientnet_lite0", "random")),
        ({"model.weights": "random"}, "cpu", RESNET, None, ("efficientnet_b0", "random")),
        ({"model.name": "resnet18", "model.weights": "mine.pt"}, "gpu", {}, None, ("resnet18", "mine.pt")),
    ],
)
def test_the_backbone_is_what_was_asked_for_then_what_is_at_hand_then_a_download(
    asked, device, at_hand, package, chosen
):
    base, decision = choose_backbone(asked, device=device, at_hand=at_hand, package=package)
    assert (base["model.name"], base["model.weights"]) == chosen
    assert decision.value == "{} with weights {}".format(*chosen)
    is_downloaded = not asked and not at_hand and package is None
    assert ("downloaded" in decision.reason and "nothing" not in decision.reason) == is_downloaded


def test_where_weights_lie_is_the_reason_to_take_them():
    _, decision = choose_backbone({}, device="cpu", at_hand=RESNET, package=None)
    assert decision.line() == (
        "backbone: resnet50 with weights pretrained (the first for a CPU that is at hand: resnet50.a1_in1k: in the cache, "
        "102 MB); --model NAME decides otherwise"
    )
    assert set(CANDIDATES["cpu"]) <= set(CANDIDATES["gpu"])


def test_as_many_images_are_looked_at_as_fit_into_a_quarter_of_the_time():
    assert choose_sample(**TASK | {"minutes": 40})[0] is None
    # 5 of 20 minutes are 300 s; two cores pass 10 billion multiply-adds a second, so 750 images of 4 billion.
    assert choose_sample(**TASK | {"num_images": 100_000})[0] == 375
    assert choose_sample(**TASK | {"num_images": 100_000, "minutes": 10})[0] == 187
    assert choose_sample(**TASK | {"num_images": 100_000, "cpus": 4})[0] == 750
    assert choose_sample(**TASK | {"num_images": 100_000, "device": "gpu"})[0] == MOST
    assert choose_sample(**TASK | {"num_images": 100_000, "gmacs": 100.0})[0] == FEWEST
    assert choose_sample(**TASK | {"num_images": 100_000, "gmacs": 100.0, "num_classes": 300})[0] == 1500
    assert choose_sample(**TASK | {"minutes": 40})[1].value == "all images"


def test_the_size_is_the_backbones_and_says_what_it_loses():
    own = describe_size(224, is_asked=False, short_side=300)
    assert own.reason == "the backbone's own; the images' shorter sides have a median of 300 pixels"
    assert describe_size(64, is_asked=True, short_side=300).reason.endswith("300 pixels, of which details may be lost")
    assert describe_size(64, is_asked=True, short_side=None).reason == "as asked for"


@pytest.mark.parametrize(
    ("minutes", "passes", "epochs"), [(5, 100, 12), (59, 100, 12), (60, 100, 27), (60, 9, 3), (60, 59, 9), (5, 59, 9)]
)
def test_trials_of_a_short_search_or_of_many_images_are_short(minutes, passes, epochs):
    scheduler, decision = choose_bounds(minutes, passes=passes)
    assert scheduler["max_epochs"] == epochs
    assert decision.value == f"{minutes} minutes in all, trials of at most {epochs} epochs"


def test_where_few_passes_fit_a_promotion_trains_fewer_again():
    assert choose_promotion(passes=60) == ({}, None)
    section, decision = choose_promotion(passes=59)
    assert section == {"promote": {"confirm": {"top": 2, "seeds": 2}}}
    for word in decision.override.split("--set ")[1:]:
        section = apply_override(section, parse_override(word.strip()))
    assert section == {"promote": {"confirm": ConfirmSection().model_dump()}}


def made(train, *, lead):
    scores = StageScores(
        probe=Evaluation({"balanced_accuracy": 0.7}, {}, [[1, 0], [0, 1]]),
        logme=-0.4,
        h_score=0.5,
        class_distance_ratio=0.1,
    )
    stages = dict.fromkeys(("stage1", "stage2", "stage3", "pooled"), scores)
    return Diagnosis(counts={"train": train}, stages=stages, lead=lead)


def test_passes_are_what_fits_into_the_time():
    task = {"num_images": 3409, "gmacs": 0.38, "device": "cpu", "cpus": 2, "minutes": 9}
    assert passes_within(**task) == pytest.approx(9 * 60 * 10 / (3409 * 0.38))
    assert passes_within(**task | {"device": "gpu"}) == pytest.approx(9 * 60 * 2000 / (3409 * 0.38))


def test_where_few_passes_fit_heads_are_searched_and_the_last_layers():
    advised = advice(made({"dog": 300, "cat": 300}, lead=Lead("stage2", -0.1, 0.03)))
    assert in_time(advised, passes=60, shows_stages=True) == (advised, None)
    few, decision = in_time(advised, passes=4.2, shows_stages=True)
    assert "freeze.depth" not in few.ranges
    seen_as_they_are = {"augment.strength": "none", "loss.logit_adjustment": 1.0}
    assert few.fixed == seen_as_they_are | {"model.pool": "stages", "freeze.depth": 0.75}
    assert "some 4 times in the time" in decision.line()
    assert [one.value for one in describe_training(few)] == [
        "linear_probe or partial",
        "0.75",
        "none, images are seen as they are",
    ]
    some, _ = in_time(advised, passes=20, shows_stages=False)
    assert some.ranges["freeze.depth"]["choice"] == [0.5, 0.75]
    assert some.recipes[1]["freeze.depth"] == 0.75
    assert some.fixed == seen_as_they_are
    assert (few.size, few.similarity, few.findings) == (advised.size, advised.similarity, advised.findings)
    assert advised.because
    assert few.reasons == few.findings  # what was advised is replaced, and not told


def test_what_trains_and_how_deep_is_that_of_the_quarter():
    small = describe_training(advice(made({"dog": 300, "cat": 300}, lead=Lead("stage2", -0.1, 0.03))))
    large = describe_training(advice(made({"dog": 5000, "cat": 5000}, lead=Lead("stage2", 0.2, 0.03))))
    assert [(one.what, one.value) for one in small] == [
        ("what trains", "linear_probe or lp_ft"),
        ("freeze depths", "[0, 0.5, 0.75]"),
        ("symmetries", "varied views are mirrored left to right alone"),
    ]
    assert small[0].reason == "a small task, similar to what the backbone knows"
    assert [one.value for one in large][:2] == ["full or scratch", "none, all layers train"]
