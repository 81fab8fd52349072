from pathlib import Path

from search.space.reference import fields, page, rows_like
from trainable.config.trial import TrialConfig

DOCS = Path(__file__).parents[3] / "docs"


def test_the_documented_configuration_is_the_one_the_fields_say():
    assert (DOCS / "configuration.md").read_text() == page()


def test_every_value_has_an_effect_written_beside_it():
    assert [row["path"] for row in rows_like([]) if not row["effect"]] == []


def test_a_path_is_found_by_a_word_of_it():
    paths = [row["path"] for row in rows_like(["layer_decay"])]
    assert paths == ["optimizer.layer_decay"]
    assert len(rows_like([])) > len(fields(TrialConfig)) > len(paths)
