"""A candidate beside a champion: which images may be asked, and what is said of them."""

import shutil

import numpy as np
import pytest

from search.promotion.evidence import gather, measure, open_served, rooted
from search.promotion.gate import gate
from search.space.sections import GateSection
from search.tracking.model_files import classify, save_model
from trainable import TrialConfig, fit
from trainable.serving.encoded import encoded_images
from trainable.serving.package import package

pytestmark = pytest.mark.slow

RULE = GateSection(metric="accuracy")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, cells):
    """Real cells in two classes; the same and some more; the same and a class more."""
    root = tmp_path_factory.mktemp("data")
    for name, count in (("old", 30), ("grown", 40), ("wider", 30)):
        for index, path in enumerate(cells[:count]):
            folder = root / name / ("defective" if index % 3 == 0 else "functional")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    (root / "wider" / "unknown").mkdir()
    for path in cells[30:]:
        shutil.copy(path, root / "wider" / "unknown")
    return root


@pytest.fixture(scope="module")
def served(folders, tmp_path_factory):
    """Makes a served model, trained shortly on one of the folders."""
    made = {}

    def make(data, *, split_seed=0, test_share=0.4, lr=1e-3):
        key = (data, split_seed, test_share, lr)
        if key not in made:
            root = tmp_path_factory.mktemp("model")
            config = TrialConfig.model_validate(
                {
                    "data": {
                        "path": str(folders / data),
                        "image_size": 32,
                        "split_seed": split_seed,
                        "test_share": test_share,
                    },
                    "model": {"name": "resnet10t", "weights": "random"},
                    "optimizer": {"lr": lr},
                    "train": {"epochs": 1, "batch_size": 9},
                }
            )
            for epoch in fit(config):
                epoch.save(root / "checkpoint")
            package(config, folder=root / "package", checkpoint=root / "checkpoint")
            save_model(root / "package", folder=root / "model")
            made[key] = open_served(root / "model", root=root)
        return made[key]

    return make


def gathered(candidate, champion):
    measured = measure(candidate, images=encoded_images(candidate.config, split="test"))
    return measured, gather(candidate, measured, champion=champion, rule=RULE)


def ids(served, *splits):
    return {sample_id for sample_id, split in served.splits.items() if split in splits}


def test_on_the_same_data_both_are_asked_for_every_test_image(served):
    candidate = served("old")
    measured, evidence = gathered(candidate, served("old", lr=1e-2))
    assert evidence.paired["num_images"] == len(measured.images) == len(ids(candidate, "test"))
    assert (evidence.old, evidence.no_old) == (None, "")


def test_beside_itself_a_model_gains_nothing(served):
    _, evidence = gathered(served("old"), served("old"))
    assert evidence.paired["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert evidence.champion == evidence.test


def test_the_packaged_model_is_what_is_measured(served):
    candidate = served("old")
    measured, evidence = gathered(candidate, None)
    assert evidence.test["metrics"]["accuracy"]["value"] == np.mean(measured.predicted.argmax(1) == measured.labels)
    assert evidence.latency_ms > 0
    assert evidence.size_mb == pytest.approx(19.8, abs=0.5)


def test_images_that_the_champion_was_trained_on_are_left_out(served):
    candidate, champion = served("old"), served("old", split_seed=1)
    _, evidence = gathered(candidate, champion)
    fair = ids(candidate, "test") - ids(champion, "train", "val")
    assert 2 <= len(fair) < len(ids(candidate, "test"))
    assert evidence.paired["num_images"] == len(fair)


def test_where_no_image_is_new_to_both_the_gate_is_told_why(served):
    _, evidence = gathered(served("old", test_share=0.15), served("old", split_seed=1, test_share=0.15))
    assert evidence.paired is None
    assert evidence.unpaired == "it was trained on the candidate's test images"
    assert not gate(evidence, rule=RULE).promote


def test_where_data_grew_the_champions_own_test_images_are_asked_too(served):
    candidate, champion = served("grown"), served("old")
    _, evidence = gathered(candidate, champion)
    fair = ids(champion, "test") - ids(candidate, "train", "val")
    if len(fair) < 2:
        pytest.fail("the splits of this test leave no old image to ask")
    assert evidence.old["num_images"] == len(fair)


def test_a_class_that_only_the_champion_knows_is_answered_by_it_all_the_same(served):
    candidate, champion = served("old"), served("wider")
    measured, evidence = gathered(candidate, champion)
    images = [image for image in measured.images if not champion.knows(image.sample_id)]
    answers = classify(champion.model, [image.read_bytes() for image in images], top_k=1)
    right = [answer["label"] == image.label for answer, image in zip(answers, images, strict=True)]
    assert evidence.champion["metrics"]["accuracy"]["value"] == np.mean(right)


def test_relative_paths_of_data_count_from_where_a_version_was_made(served, folders):
    candidate = served("old")
    description = candidate.description["config"]
    relative = {**description, "data": {**description["data"], "path": "old"}}
    assert rooted(relative, root=folders).data.path == str(folders / "old")
    assert rooted(relative, root=folders / "nowhere").data.path == "old"


def test_a_domain_is_no_path_though_a_folder_bears_its_name(served, folders):
    description = served("old").description["config"]
    domains = {"path": "old", "domain_column": "kind", "source": ["grown"], "target": "wider"}
    data = rooted({**description, "data": {**description["data"], **domains}}, root=folders).data
    assert (data.source, data.target) == (["grown"], "wider")
    folders_apart = {"path": "", "source": ["grown"], "target": "wider"}
    data = rooted({**description, "data": {**description["data"], **folders_apart}}, root=folders).data
    assert (data.source, data.target) == ([str(folders / "grown")], str(folders / "wider"))


def test_a_class_that_the_champion_does_not_know_counts_against_it(served):
    candidate, champion = served("wider"), served("old")
    measured, evidence = gathered(candidate, champion)
    assert "unknown" in evidence.test["per_class"]
    assert evidence.champion["per_class"]["unknown"]["recall"] == 0.0
    assert evidence.paired["num_images"] == len(
        [image for image in measured.images if image.sample_id not in ids(champion, "train", "val")]
    )
