"""What a report shows of the backbones that were looked at before a search."""

from search.ledger.notes import BackboneChoice, read_notes
from search.report.backbones import backbone_figures, backbone_lines, backbones_html


def figures(rank):
    score = {"logme": (5 - rank) / 10, "h_score": 1.0 + rank, "probe": 0.9 - rank / 100}
    return score | {"gmacs": 2.0**rank, "parameters": 10**6, "image_size": 224, "seconds_per_image": 0.002 * (1 + rank)}


SCORES = {f"net{rank}": figures(rank) for rank in (2, 0, 1)}
CHOICE = BackboneChoice(scores=SCORES, kept=["net0", "net1"], by="probe", not_scored=["net8", "net9"])


def test_the_best_are_told_first_with_what_was_not_scored():
    assert backbone_lines(CHOICE) == [
        "backbone net0: logme 0.5, h_score 1, probe 0.9, 1 GMACs an image",
        "backbone net1: logme 0.4, h_score 2, probe 0.89, 2 GMACs an image",
        "backbone net2: logme 0.3, h_score 3, probe 0.88, 4 GMACs an image, left out",
        "backbones: 2 of 5 not scored for want of time (select_backbones.minutes), the costliest",
    ]
    many = BackboneChoice(scores={f"net{rank:02}": figures(rank) for rank in range(30)}, kept=["net00"], by="probe")
    assert backbone_lines(many)[10:] == ["backbones: 20 more scored and left out; the page has them"]
    assert backbone_lines(None) == []


def test_the_page_has_all_of_them_as_a_table_and_a_plot():
    text = backbones_html(CHOICE)
    assert [text.index(f"<td>net{rank}</td>") for rank in range(3)] == sorted(
        text.index(f"<td>net{rank}</td>") for rank in range(3)
    )
    assert "<td>0.8900</td><td>2</td><td>4</td><td>224</td><td>1,000,000</td><td>searched</td>" in text
    assert "2 of 5 not scored" in text
    (figure,) = (make() for make in backbone_figures(CHOICE).values())
    kept, left_out = figure.data
    assert (list(kept.x), list(kept.y)) == ([1.0, 2.0], [0.9, 0.89])
    assert (list(left_out.x), list(left_out.y)) == ([4.0], [0.88])
    assert left_out.text[0] == "net2<br>6 ms an image"
    assert backbones_html(None) == ""
    assert backbone_figures(None) == {}


def test_the_note_of_an_older_ledger_is_shown_with_what_it_has():
    stored = {
        "backbones": {
            "scores": {"a": {"logme": 0.5, "h_score": 2.0}, "b": {"logme": 0.7, "h_score": 1.0}},
            "kept": ["b"],
        }
    }
    choice = read_notes(stored).backbones
    assert backbone_lines(choice) == ["backbone b: logme 0.7, h_score 1", "backbone a: logme 0.5, h_score 2, left out"]
    assert "<td>0.7000</td><td>1.0000</td><td></td>" in backbones_html(choice)
    assert backbone_figures(choice) == {}
