"""Work that is held to its images refuses others, before anything is made of them."""

import shutil

import pytest

from trainable import fit
from trainable.data.image_guard import ImagesChangedError, held_to
from trainable.serving.encoded import encoded_images, fingerprint_now


@pytest.fixture
def config(make_config, cell_folder, tmp_path):
    """A small trial on images of its own."""
    shutil.copytree(cell_folder, tmp_path / "cells")
    shutil.copytree(cell_folder, tmp_path / "old")
    return make_config(data={"path": str(tmp_path / "cells"), "rehearsal": str(tmp_path / "old")})


def add_image(folder):
    """Another image than any that is there, and where it is."""
    one = min((folder / "functional").iterdir())
    path = folder / "functional" / "new.png"
    path.write_bytes(one.read_bytes() + b"\0")
    return path


def first_epoch(config, expected):
    with held_to(expected):
        return next(fit(config))


def test_a_trial_is_refused_other_images_before_its_first_epoch(config, tmp_path):
    was = fingerprint_now(config)
    expected = {"path": [was]}
    assert first_epoch(config, expected).number == 1
    added = add_image(tmp_path / "cells")
    now = fingerprint_now(config)
    with pytest.raises(ImagesChangedError) as refused:
        first_epoch(config, expected)
    assert str(refused.value).startswith(
        f"data.path: the images have changed since this search began (fingerprint {now[:12]}, was {was[:12]}); "
    )
    assert next(fit(config)).number == 1  # held to nothing
    added.unlink()
    assert first_epoch(config, expected).number == 1


def test_old_images_that_are_rehearsed_are_held_too(config, tmp_path):
    was = fingerprint_now(config)  # of the same images
    add_image(tmp_path / "old")
    assert first_epoch(config, {"path": [was]}).number == 1
    with pytest.raises(ImagesChangedError, match=r"data\.rehearsal: the images have changed"):
        first_epoch(config, {"path": [was], "rehearsal": [was]})


def test_an_unlabelled_image_of_the_target_counts(make_config, cell_folder, tmp_path):
    for name in ("source", "target"):
        shutil.copytree(cell_folder, tmp_path / name)
    for index, path in enumerate(sorted((tmp_path / "target").rglob("*.png"))):
        path.write_bytes(path.read_bytes() + bytes(1 + index % 2))
    config = make_config(data={"path": "", "source": [str(tmp_path / "source")], "target": str(tmp_path / "target")})
    expected = {"path": [fingerprint_now(config)]}
    add_image(tmp_path / "target")
    with pytest.raises(ImagesChangedError):
        first_epoch(config, expected)


@pytest.mark.parametrize("change", ["another image", "gone"])
def test_a_file_that_changed_after_the_look_is_not_read_as_what_it_was(config, tmp_path, change):
    image = encoded_images(config, split="val")[0]
    assert image.read_bytes()
    for path in (tmp_path / "cells").rglob("*.png"):
        if change == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ImagesChangedError, match=r"data\.path: .* is not the image any more"):
        image.read_bytes()
