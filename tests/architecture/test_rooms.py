"""Every module has a test file of its name, or stands here with the tests that hold it and why they are elsewhere."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [
    str(path.relative_to(ROOT))
    for tree in ("search", "trainable")
    for path in sorted((ROOT / tree).rglob("*.py"))
    if path.name != "__init__.py"
]

# By the tests that hold them: modules without a test file of their own, by reason.
ELSEWHERE = {
    # Commands and what they run from beginning to end are called as a user calls them, on real images.
    "tests/integration/test_search.py": """
        search/__main__.py search/cli/searches.py search/cli/options.py search/run/examination.py search/run/finish.py
        search/run/session.py
        search/engine/listeners.py search/report/overview.py search/report/html.py
        search/tune/submit.py search/tune/tuner.py
    """,
    "tests/integration/test_techniques.py": """
        search/run/baselines.py search/run/pretraining.py
    """,
    "tests/integration/test_promotion.py": "search/cli/models.py search/tracking/model_files.py",
    "tests/integration/test_refresh.py": """
        search/report/history.py
    """,
    "tests/integration/test_adaptation.py": "trainable/diagnosis/tsne.py",
    # The entries of a table, and what every one of them keeps.
    "tests/contracts/test_schedulers.py": """
        search/engine/no_halving.py search/engine/rule.py search/engine/schedulers.py
    """,
    "tests/contracts/test_readers.py": """
        trainable/data/readers/columns.py trainable/data/readers/elpv.py trainable/data/readers/folder.py
        trainable/data/readers/manifest.py trainable/data/readers/sample.py
    """,
    "tests/contracts/test_export_formats.py": """
        trainable/deploy/deployed.py trainable/deploy/int8.py trainable/deploy/onnx.py trainable/deploy/pt2.py
        trainable/deploy/table.py trainable/deploy/variant.py trainable/libraries.py
    """,
    "tests/contracts/test_adaptations.py": """
        trainable/adapt/alignment.py trainable/adapt/changed_images.py trainable/adapt/confusion.py trainable/adapt/seen.py
        trainable/adapt/separate_norms.py
    """,
    "tests/contracts/test_augmentations.py": "trainable/loader/augmentations.py",
    "tests/contracts/test_backbones.py": "trainable/model/backbone.py trainable/model/stages.py",
    "tests/contracts/test_probes.py": "trainable/statistics/probe.py",
    "tests/contracts/test_strategies.py": "trainable/model/additions.py",
    "tests/contracts/test_techniques.py": "trainable/config/techniques.py",
    # Read, refused and explained where a whole space file or a whole trial is read.
    "tests/search/space/test_spec.py": """
        search/space/before.py search/space/sections.py search/space/promotion_sections.py search/space/identity.py
        search/space/paths.py
    """,
    "tests/search/space/test_loading.py": """
        search/space/overrides.py trainable/config/strict_yaml.py trainable/config/validation.py
    """,
    "tests/search/space/test_space.py": "search/space/dimension.py search/space/values.py",
    "tests/trainable/data/test_selection.py": "trainable/data/copies.py trainable/data/classes.py",
    "tests/trainable/test_main.py": "trainable/config/trial.py trainable/diagnosis/plan_table.py trainable/errors.py",
    "tests/trainable/pretraining/test_meta.py": "trainable/config/meta.py",
    "tests/trainable/pretraining/test_training.py": """
        trainable/config/pretrain.py trainable/pretraining/images.py trainable/pretraining/methods.py
    """,
    # Pieces that are seen only in what they are pieces of.
    "tests/search/diagnosis/test_diagnose.py": "search/diagnosis/space_file.py",
    "tests/search/engine/test_conductor.py": "search/engine/reports.py",
    "tests/search/engine/test_sampling.py": "search/ledger/trials.py",
    "tests/search/ledger/test_ledger.py": "search/ledger/notes.py",
    "tests/search/promotion/test_refit.py": "search/run/refitting.py",
    "tests/search/tracking/test_tracker.py": "search/tracking/runs.py",
    "tests/search/tune/test_nursery.py": "search/tune/environment.py search/tune/worker_entry.py",
    "tests/search/tune/test_worker.py": """
        search/tune/leg.py search/tune/machine.py search/tune/preparation.py search/tune/tasks.py
    """,
    "tests/search/watch/test_loop.py": "search/watch/plan.py search/watch/record.py search/watch/status.py",
    "tests/trainable/data/test_pack.py": "trainable/data/pack_builder.py trainable/data/input_spec.py",
    "tests/trainable/data/test_versions.py": "trainable/data/kept_splits.py",
    "tests/trainable/diagnosis/test_diagnose.py": "trainable/diagnosis/advice.py",
    "tests/trainable/model/test_chain.py": "trainable/randomness.py trainable/seeds.py",
    "tests/trainable/serving/test_package.py": "trainable/serving/classifier.py trainable/serving/encoded.py",
    "tests/trainable/statistics/test_transferability.py": "trainable/statistics/arrays.py",
    "tests/trainable/training/test_soup.py": "trainable/model/norms.py",
    "tests/trainable/training/test_fit.py": """
        trainable/training/evaluate.py
        trainable/training/measure.py trainable/training/setup.py trainable/training/state.py
    """,
}
REASONS = {module: tests for tests, modules in ELSEWHERE.items() for module in modules.split()}


def own_test(module):
    path = Path(module)
    return ROOT / "tests" / path.parent / f"test_{path.stem.strip('_')}.py"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_test_file_or_a_reason(module):
    has_own = own_test(module).is_file()
    assert has_own != (module in REASONS), REASONS.get(module, "give it a test file, or say here which tests hold it")


def test_what_is_excused_is_there():
    assert set(REASONS) <= set(MODULES)
    assert [tests for tests in ELSEWHERE if not (ROOT / tests).is_file()] == []


def test_a_test_file_bears_the_name_of_a_module():
    names = {str(own_test(module).relative_to(ROOT)) for module in MODULES}
    found = [
        str(path.relative_to(ROOT))
        for tree in ("search", "trainable")
        for path in sorted((ROOT / "tests" / tree).rglob("test_*.py"))
    ]
    assert [path for path in found if path not in names] == []
