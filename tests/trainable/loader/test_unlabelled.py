"""Images without labels beside labelled ones."""

import shutil

import numpy as np
import pytest

from trainable.config.trial import TrialConfig
from trainable.data.image_guard import ImagesChangedError, held_to
from trainable.data.pack import open_pack
from trainable.errors import UserError
from trainable.loader.unlabelled import open_beside, with_unlabelled


@pytest.fixture
def beside(draw_folder, draw_image, cache, spec, tmp_path):
    """Opens what is in a folder beside a data set of two classes."""
    root = draw_folder({"a": 9, "b": 9})

    def opened(folder):
        config = TrialConfig.model_validate(
            {"data": {"path": str(root), "cache": cache}, "distill": {"teachers": ["x"], "unlabelled": str(folder)}}
        )
        return open_beside(config, spec, pack=open_pack(config.data, spec))

    return opened


def test_each_batch_has_the_share_and_each_image_comes_as_often_as_any_other():
    rows, among = np.arange(30), np.arange(100, 107)
    epochs = [with_unlabelled(rows, among=among, count=10, seed=3, epoch=epoch) for epoch in (1, 2, 1)]
    for shown in epochs:
        assert shown[shown < 100].tolist() == rows.tolist()  # the labelled ones in their order
        for first in range(0, 40, 8):
            assert 1 <= (shown[first : first + 8] >= 100).sum() <= 3  # a quarter, give or take one
        assert sorted(np.bincount(shown[shown >= 100])[100:]) == [1, 1, 1, 1, 2, 2, 2]
    assert np.array_equal(epochs[0], epochs[2])
    assert not np.array_equal(epochs[0], epochs[1])


def test_images_that_the_data_have_are_left_out_and_copies_come_once(beside, draw_image, tmp_path):
    folder = tmp_path / "wild"
    for number in range(5):
        draw_image(folder / "deep" / f"{number}.png", number=100 + number)
    shutil.copy(folder / "deep/0.png", folder / "again.png")
    for name in ("a/3.png", "b/4.png"):
        shutil.copy(tmp_path / "images" / name, folder / name.replace("/", "-"))
    opened = beside(folder)
    assert (len(opened.rows), opened.num_known) == (5, 2)
    assert {opened.pack.names[row].split("/")[-1] for row in opened.rows} >= {f"{number}.png" for number in range(1, 5)}
    assert opened.line().startswith(
        "distill.unlabelled: 5 images are learnt from teachers alone, 50% of each batch; 2 more"
    )
    assert [opened.count(number) for number in (12, 1)] == [12, 1]
    with (
        held_to({"distill.unlabelled": ["other"]}),
        pytest.raises(ImagesChangedError, match=r"^distill\.unlabelled: the im"),
    ):
        beside(folder)


def test_what_has_no_image_of_its_own_is_one_line(beside, draw_image, tmp_path):
    with pytest.raises(UserError, match=r"distill\.unlabelled: .* is no folder"):
        beside(tmp_path / "nowhere")
    draw_image(tmp_path / "two" / "0.png", number=100)
    draw_image(tmp_path / "two" / "1.png", number=101)
    with pytest.raises(UserError, match=r"distill\.unlabelled: .*two' has fewer than 3 different images"):
        beside(tmp_path / "two")
    with pytest.raises(UserError, match=r"distill\.unlabelled: the data have every image of"):
        beside(tmp_path / "images")


def test_without_a_teacher_it_is_refused():
    with pytest.raises(ValueError, match=r"distill\.unlabelled: needs distill\.teachers"):
        TrialConfig.model_validate({"distill": {"unlabelled": "wild"}})
