"""The page of a promotion: what the gate said of the candidate, and its card."""

import html
import re
from collections.abc import Callable
from pathlib import Path

from markdown_it import MarkdownIt

from search.ledger.files import PROMOTION_PAGE
from search.ledger.lease import writing_errors
from search.promotion.card import card
from search.promotion.gate import Evidence
from search.promotion.promote import Promotion
from search.promotion.table import beside_champion, outcome_text
from search.report.classes import range_html
from search.report.headline import PERCENT, score_text
from search.report.html import Section, Tile, html_cells, html_row, html_table, html_tiles, html_verdict, page_html
from search.tracking.registry import log_files, resolve
from search.tracking.uri import check_uri
from trainable.atomic import write_beside
from trainable.errors import OutageError, UserError

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def publish_promotion_page(promotion: Promotion, *, folder: Path, tell: Callable[[str], None]) -> None:
    """:func:`write_promotion_page`, and the page among the files of the version's run in MLflow; ``tell`` hears where it lies.

    What is promoted already stays so where MLflow's store fails now, which is told.
    """
    path = write_promotion_page(promotion, folder=folder)
    if path is None:
        return
    tell(f"page: {path}")
    try:
        uri = check_uri(promotion.candidate.search.spec.tracking.uri)
        version = resolve(uri, f"models:/{promotion.name}/{promotion.version}")
        log_files(uri, run_id=version.run_id, files=[path])
    except (UserError, OutageError) as error:
        tell(f"note: the page is not in MLflow: {error}")


def write_promotion_page(promotion: Promotion, *, folder: Path) -> Path | None:
    """Write the page into the folder of the search; none of a dry run, and where the candidate was champion already.

    Raises what :func:`writing_errors` does where it cannot be written.
    """
    if promotion.evidence is None or promotion.outcome == "dry run":
        return None
    path = folder / PROMOTION_PAGE
    with writing_errors(path), write_beside(path) as file:
        file.write(_page(promotion, evidence=promotion.evidence).encode())
    return path


def _page(promotion: Promotion, *, evidence: Evidence) -> str:
    beside = beside_champion(promotion)
    told = [f"{promotion.name}: {outcome_text(promotion)}", *([beside] if beside else [])]
    checks = [
        html_row(["yes" if check.passed else "no", check.name, check.reason]) for check in promotion.verdict.checks
    ]
    head = html_verdict(_sentence(promotion), others=told) + html_tiles(_tiles(promotion, evidence=evidence))
    sections = [
        Section("What the gate asked", html_table(checks, heads=("passed", "what", "measured and asked"))),
        Section("Recall by class", _recalls(evidence)),
        *card_sections(card(promotion.candidate, evidence=evidence)),
    ]
    return page_html(f"{promotion.name}: promotion", head=head, sections=sections)


def card_sections(text: str) -> list[Section]:
    """The parts of a card in Markdown, each under its heading; HTML in it is text."""
    _, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    return [
        Section(title, f'<div class="scroll">{MARKDOWN.render(body)}</div>')
        for title, _, body in (part.partition("\n") for part in parts)
    ]


def _sentence(promotion: Promotion) -> str:
    if promotion.verdict.promote:
        return f"the gate says yes to {promotion.candidate.recipe}"
    return f"the gate says no to {promotion.candidate.recipe}: {'; '.join(promotion.verdict.reasons)}"


def _tiles(promotion: Promotion, *, evidence: Evidence) -> list[Tile]:
    """The candidate's main figures, and how much better it is than the champion."""
    rule, test = promotion.candidate.search.spec.promote, evidence.test
    score, words = test.metrics[rule.metric], rule.metric.replace("_", " ")
    shown = [
        Tile(
            f"{words}, test",
            score_text(score.value, rule.metric),
            f"{score_text(score.low, rule.metric)} to {score_text(score.high, rule.metric)} ({PERCENT * rule.confidence:g} %), "
            f"{test.num_images} images",
        )
    ]
    if evidence.paired is not None:
        gain = evidence.paired.gain
        note = f"{PERCENT * gain.low:+.1f} to {PERCENT * gain.high:+.1f}, {evidence.paired.num_images} images"
        shown.append(Tile("beside the champion", f"{PERCENT * gain.value:+.1f} points", note))
    return [
        *shown,
        Tile("calibration error", f"{test.ece:.3f}", "expected, 15 bins"),
        Tile("an image", f"{evidence.latency_ms:.1f} ms", "the median, alone, on this machine"),
        Tile("files", f"{evidence.size_mb:.1f} MB"),
    ]


def _recalls(evidence: Evidence) -> str:
    """Every class on a line, the worst first."""
    rows = [
        html_cells(
            [
                html.escape(name),
                str(score["count"]),
                range_html(score["recall"], low=score["recall_low"], high=score["recall_high"]),
            ]
        )
        for name, score in sorted(evidence.test.per_class.items(), key=lambda item: (item[1]["recall"], item[0]))
    ]
    return html_table(rows, heads=("class", "images", "recall"))
