"""The page of a promotion, against what was judged."""

from dataclasses import replace

from search.promotion.page import card_sections, publish_promotion_page, write_promotion_page
from trainable.statistics.comparison import Interval, Paired

NOWHERE = "sqlite:////nowhere/mlflow.db"


def written(promotion, folder):
    return write_promotion_page(promotion, folder=folder).read_text()


def test_it_has_the_verdict_the_figures_every_check_and_the_card(promotion, tmp_path):
    text = written(promotion, tmp_path)
    assert text.index("the gate says yes to trial 2") < text.index("cells: version 3 is champion now")
    assert "<b>90.0 %</b><span>85.0 % to 95.0 % (95 %), 100 images</span>" in text
    assert "<b>20.0 MB</b>" in text
    for check in promotion.verdict.checks:
        assert f"<td>yes</td><td>{check.name}</td>" in text
    assert text.index("<td>crack</td><td>10</td>") < text.index("<td>fine</td><td>90</td>")  # the worst recall first
    assert '<section id="intended-use"><h2>Intended use</h2>' in text
    assert "<th>balanced_accuracy</th>" not in text
    assert "<td>balanced_accuracy</td>" in text  # the card's own table
    assert "<script" not in text


def test_a_refusal_is_said_first_with_its_reasons_and_how_it_stands_beside_the_champion(promotion, tmp_path):
    paired = Paired(num_images=90, gain=Interval(-0.02, -0.05, 0.01), only_first=2, only_second=4, p=0.69)
    evidence = replace(promotion.evidence, has_champion=True, paired=paired)
    checks = (replace(promotion.verdict.checks[0], passed=False, reason="worse than the champion <b>"),)
    refused = replace(
        promotion, evidence=evidence, verdict=replace(promotion.verdict, checks=checks), outcome="refused"
    )
    text = written(refused, tmp_path)
    assert "the gate says no to trial 2: worse than the champion &lt;b&gt;" in text
    assert "<span>beside the champion</span><b>-2.0 points</b><span>-5.0 to +1.0, 90 images</span>" in text
    assert "not better than the champion" in text
    assert "cells: version 3 is not promoted" in text


def test_a_champion_that_was_not_measured_again_has_no_new_page_and_a_dry_run_none(promotion, tmp_path):
    assert write_promotion_page(replace(promotion, evidence=None), folder=tmp_path) is None
    assert write_promotion_page(replace(promotion, outcome="dry run"), folder=tmp_path) is None
    assert list(tmp_path.glob("*.html")) == []


def test_where_mlflow_fails_the_page_is_there_all_the_same_and_it_is_said(promotion, tmp_path):
    told = []
    search = promotion.candidate.search
    nowhere = search.spec.model_copy(update={"tracking": search.spec.tracking.model_copy(update={"uri": NOWHERE})})
    lost = replace(promotion, candidate=replace(promotion.candidate, search=replace(search, spec=nowhere)))
    publish_promotion_page(lost, folder=tmp_path, tell=told.append)
    assert (tmp_path / "promotion.html").is_file()
    assert told[0] == f"page: {tmp_path}/promotion.html"
    assert told[1].startswith("note: the page is not in MLflow: ")


def test_a_cards_text_is_never_a_tag():
    (section,) = card_sections("# cells\n\n## Data\n\n| class |\n| --- |\n| <img src=x onerror=alert(1)> |\n")
    assert section.title == "Data"
    assert "<img" not in section.body
    assert "&lt;img src=x" in section.body
    assert "<table>" in section.body
