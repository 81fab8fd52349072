"""What a page shows of the final candidate's mistakes."""

import json

import pytest

from search.ledger.files import MISTAKES
from search.report.mistakes import (
    confusion_figure,
    confusion_title,
    mistakes_sections,
    read_mistakes,
    reliability_figure,
)


def image(name="a.png", picture="data:image/jpeg;base64,AAAA"):
    return {
        "name": name,
        "label": "cat",
        "predicted": "dog",
        "probability": 0.91,
        "of_label": 0.05,
        "picture": picture,
    }


def document(num_classes=2, **changes):
    rows = [
        {"class": f"c{i}", "recall": i / 200, "recall_low": 0.1, "recall_high": 0.9, "precision": 0.5, "count": 7}
        for i in range(num_classes)
    ]
    confusion = {"classes": ["cat", "dog"], "counts": [[3, 1], [0, 4]], "num_classes": num_classes}
    found = {"trial": 3, "soup": None, "num_images": 8, "per_class": rows, "confusion": confusion}
    return found | {"confident": [image()], "unsure": [], "suspected": []} | changes


def test_only_what_is_of_the_final_candidate_is_read(tmp_path):
    assert read_mistakes(tmp_path, trial=3, soup=None) is None
    (tmp_path / MISTAKES).write_text(json.dumps(document()))
    assert read_mistakes(tmp_path, trial=3, soup=None) == document()
    assert read_mistakes(tmp_path, trial=3, soup=[3, 1]) is None
    assert read_mistakes(tmp_path, trial=4, soup=None) is None


def test_classes_and_images_are_shown_with_true_and_predicted_class():
    classes, confident, unsure, suspected, pairs = mistakes_sections(document())
    assert "<td>c1</td><td>7</td>" in classes.body
    assert '0.005 <span class="soft">(0.10 to 0.90)</span></td><td>0.500</td>' in classes.body
    assert "is cat (0.05)<br>taken for dog (0.91)" in confident.body
    assert (unsure.body, suspected.body, pairs.body) == ("", "", "")
    assert mistakes_sections(None) == []


def test_pairs_that_look_alike_are_shown_side_by_side_with_their_split():
    pair = {"similarity": 0.987, "split": "test", "images": [image("held.png"), image("known.png")]}
    *_, pairs = mistakes_sections(document(alike=[pair], num_alike=9))
    assert pairs.title == "Held-out images that look like training images, 1 of 9 pairs"
    assert pairs.body.index("cat, in test, alike by 0.987") < pairs.body.index("cat, in train")


def test_reliability_has_a_point_for_each_bin_beside_the_line_of_a_calibrated_network():
    bins = [{"confidence": 0.55, "accuracy": 0.4, "count": 10}, {"confidence": 0.95, "accuracy": 0.9, "count": 90}]
    line, points = reliability_figure(bins).data
    assert list(line.x) == list(line.y)
    assert (list(points.x), list(points.y)) == ([0.55, 0.95], [0.4, 0.9])
    assert points.marker.size[0] < points.marker.size[1]


@pytest.mark.parametrize(("num_classes", "folded"), [(2, False), (101, True)])
def test_many_classes_do_not_push_all_else_down_the_page(num_classes, folded):
    assert ("<details>" in mistakes_sections(document(num_classes))[0].body) == folded


def test_names_of_files_are_text_and_pictures_are_our_own():
    _, section, *_ = mistakes_sections(document(confident=[image('"><script>x</script>', picture="javascript:x")]))
    page = section.body
    assert "<script>" not in page
    assert "javascript" not in page


def test_a_confusion_has_the_share_of_the_true_class_and_the_number():
    figure = confusion_figure(document()["confusion"])
    assert [list(row) for row in figure.data[0].z] == [[0.75, 0.25], [0.0, 1.0]]
    assert [list(row) for row in figure.data[0].text] == [["3", "1"], ["0", "4"]]
    assert list(figure.layout.xaxis.ticktext) == ["cat", "dog"]
    assert confusion_title(document()["confusion"]) == "Confusion on validation images"
    many = confusion_title(document(101)["confusion"])
    assert many == "Confusion on validation images, the 2 of 101 classes with most mistakes"
