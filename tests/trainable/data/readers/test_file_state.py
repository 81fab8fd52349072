"""The quick state of a data set follows what can be seen of its files from outside."""

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainable.config.trial import DataConfig
from trainable.data.fingerprint import content_fingerprint
from trainable.data.readers.file_state import has_marker, quick_state
from trainable.data.readers.read import read_source
from trainable.errors import UserError

LONG_AGO = 1_600_000_000  # seconds since 1970


def date(path, seconds):
    os.utime(path, ns=(seconds * 10**9, seconds * 10**9))


def age(root):
    for path in [root, *root.rglob("*")]:
        date(path, LONG_AGO)


@pytest.fixture
def root(copied_cells):
    """Eight photographs of solar cells in two class folders, all of one date."""
    age(copied_cells)
    return copied_cells


@pytest.fixture
def listed(root):
    """The same images in a CSV."""
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    lines = [f"{name},{name.split('/')[0]}" for name in names]
    (root / "list.csv").write_text("\n".join(["image,label", *lines, ""]))
    age(root)
    return root / "list.csv"


def first_of(root, label="whole"):
    return min((root / label).iterdir())


def state(path, **fields):
    return quick_state(DataConfig(path=str(path), **fields))


def key(path, **fields):
    return state(path, **fields).key


def test_a_folder_is_told_by_its_number_of_images_and_its_newest_date(root):
    found = state(root)
    assert (found.num_files, found.newest) == (8, LONG_AGO)
    assert len(found.key) == 32
    assert state(root) == found
    date(first_of(root), LONG_AGO + 5)
    assert state(root).newest == LONG_AGO + 5


@pytest.mark.parametrize("change", ["touch", "rename", "rewrite"])
def test_what_leaves_the_images_as_they_are_changes_the_key_and_not_the_fingerprint(root, change):
    before = key(root), content_fingerprint(read_source(DataConfig(path=str(root))))
    path = first_of(root)
    if change == "touch":
        path.touch()
    elif change == "rename":
        path.rename(path.with_name(f"0{path.name}"))  # the first one still
    else:
        path.write_bytes(path.read_bytes())
    after = key(root), content_fingerprint(read_source(DataConfig(path=str(root))))
    assert after[0] != before[0]
    assert after[1] == before[1]


@pytest.mark.parametrize("change", ["move", "grow", "remove", "add"])
def test_what_changes_the_images_changes_the_key(root, change):
    before = key(root)
    path = first_of(root)
    if change == "move":
        path.rename(root / "cracked" / path.name)
    elif change == "grow":
        path.write_bytes(path.read_bytes() + b"x")
        date(path, LONG_AGO)
    elif change == "remove":
        path.unlink()
    else:
        shutil.copy2(path, path.with_name("new.png"))
    assert key(root) != before


def test_a_removed_or_renamed_image_shows_in_the_newest_date_by_its_folder(root):
    date(root / "whole", LONG_AGO + 7)
    assert state(root).newest == LONG_AGO + 7


def test_what_is_not_read_does_not_change_the_key(root, draw_image):
    before = key(root)
    (root / "_SUCCESS").touch()
    (root / "whole" / "notes.txt").write_text("no image")
    draw_image(root / "whole" / ".hidden.png", number=0)
    draw_image(root / "whole" / ".thumbnails" / "0.png", number=1)
    assert key(root) == before
    assert state(root).num_files == 8


def test_linked_folders_are_followed(root, tmp_path, draw_image):
    image = draw_image(tmp_path / "elsewhere" / "0.png", number=0)
    (root / "whole" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert state(root).num_files == 9
    before = key(root)
    image.touch()
    assert key(root) != before


def test_a_link_to_nowhere_is_a_file_without_a_state(root):
    before = key(root)
    (root / "whole" / "link.png").symlink_to(root / "nowhere.png")
    without = key(root)
    (root / "nowhere.png").write_bytes(b"")
    assert len({before, without, key(root)}) == 3


def test_a_copy_with_its_dates_in_another_place_has_the_same_key(root, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    assert key(tmp_path / "copy") == key(root)


def test_a_manifest_is_told_by_its_own_state_and_that_of_the_images_it_names(root, listed, draw_image):
    found = state(listed)
    assert (found.num_files, found.newest) == (9, LONG_AGO)
    draw_image(root / "whole" / "unlisted.png", number=0)
    assert key(listed) == found.key
    keys = {found.key}
    first_of(root).touch()
    keys.add(key(listed))
    listed.write_text(listed.read_text().replace(",whole", ",cracked", 1))
    date(listed, LONG_AGO)
    keys.add(key(listed))
    first_of(root).unlink()
    keys.add(key(listed))
    assert len(keys) == 4


def test_a_manifest_may_be_parquet(root, listed):
    names = [line.split(",") for line in listed.read_text().splitlines()[1:]]
    table = pa.table({"image": [name for name, _ in names], "label": [label for _, label in names]})
    pq.write_table(table, root / "list.parquet")
    date(root / "list.parquet", LONG_AGO)
    assert state(root / "list.parquet").num_files == 9
    first_of(root).touch()
    assert state(root / "list.parquet").newest > LONG_AGO


def test_a_table_is_told_by_its_files_however_deep(root, tmp_path):
    for label in ("whole", "cracked"):
        folder = tmp_path / "tables" / f"label={label}"
        folder.mkdir(parents=True)
        pq.write_table(
            pa.table({"image": [file.read_bytes() for file in (root / label).iterdir()]}), folder / "0.parquet"
        )
    age(tmp_path / "tables")
    found = state(tmp_path / "tables")
    assert (found.num_files, found.newest) == (2, LONG_AGO)
    assert state(tmp_path / "tables" / "label=whole" / "0.parquet").num_files == 1
    (tmp_path / "tables" / "_temporary").mkdir()
    shutil.copy(tmp_path / "tables" / "label=whole" / "0.parquet", tmp_path / "tables" / "_temporary")
    assert key(tmp_path / "tables") == found.key
    (tmp_path / "tables" / "label=whole" / "0.parquet").touch()
    assert key(tmp_path / "tables") != found.key


@pytest.mark.parametrize("folder", [".", "label=whole"])
def test_a_removed_or_renamed_part_of_a_table_shows_in_the_newest_date_by_its_folder(tmp_path, folder):
    (tmp_path / "tables" / "label=whole").mkdir(parents=True)
    pq.write_table(pa.table({"image": [b"1"]}), tmp_path / "tables" / "label=whole" / "0.parquet")
    age(tmp_path / "tables")
    date(tmp_path / "tables" / folder, LONG_AGO + 7)
    assert state(tmp_path / "tables").newest == LONG_AGO + 7


def test_the_package_of_solar_cells_has_a_state():
    found = quick_state(DataConfig(format="elpv"))
    assert found.num_files == 2625  # images, and the file of their labels
    assert found == quick_state(DataConfig(format="elpv", elpv_rule="prob>0"))


def test_every_domain_counts(root, listed, tmp_path, draw_image):
    draw_image(tmp_path / "target" / "0.png", number=0)
    draw_image(tmp_path / "target" / "1.png", number=1)
    config = DataConfig(source=[str(root), str(listed)], target=str(tmp_path / "target"))
    keys = {quick_state(config).key}
    assert quick_state(config).num_files == 8 + 9 + 2
    for path in (first_of(root), listed, tmp_path / "target" / "0.png"):
        path.touch()
        keys.add(quick_state(config).key)
    assert len(keys) == 4


def test_an_image_that_goes_from_one_domain_to_another_changes_the_key(root, tmp_path):
    (tmp_path / "target" / "whole").mkdir(parents=True)
    *_, one, other = sorted((root / "whole").iterdir())
    other.rename(tmp_path / "target" / "whole" / other.name)
    config = DataConfig(source=[str(root)], target=str(tmp_path / "target"))
    before = quick_state(config)
    one.rename(tmp_path / "target" / "whole" / one.name)  # the last of the one, the first of the other
    assert quick_state(config).num_files == before.num_files
    assert quick_state(config).key != before.key


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "{there}s"},
        {"path": ""},
        {"path": "{there}s", "format": "table"},
        {"source": ["{there}"], "target": "{there}s"},
        {"source": ["{there}s"], "target": "{there}"},
        {"path": "{there}/../broken.parquet"},
        {"path": "{there}/../broken.parquet", "format": "manifest"},
        {"path": "{there}/../broken.csv", "image_column": "picture"},
    ],
)
def test_a_path_that_cannot_be_used_is_the_line_that_reading_it_gives(root, fields):
    (root.parent / "broken.parquet").write_text("no table")
    (root.parent / "broken.csv").write_text("image,label\n")
    fields = {
        name: [one.format(there=root) for one in value] if isinstance(value, list) else value.format(there=root)
        for name, value in fields.items()
    }
    lines = []
    for call in (read_source, quick_state):
        with pytest.raises(UserError) as caught:
            call(DataConfig(**fields))
        lines.append(str(caught.value))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0]


def test_a_name_that_is_no_text_is_a_name_all_the_same(root):
    path = first_of(root)
    odd = path.rename(path.with_name(os.fsdecode(b"\xff.png")))
    before = key(root)
    odd.touch()
    assert key(root) != before


def test_a_marker_lies_in_the_folder_or_beside_the_file(root, listed):
    for path in (root, listed):
        assert not has_marker(DataConfig(path=str(path)), "_SUCCESS")
    (root / "_SUCCESS").touch()
    for path in (root, listed, f"{root}/"):
        assert has_marker(DataConfig(path=str(path)), "_SUCCESS")
    assert not has_marker(DataConfig(format="elpv"), "_SUCCESS")
    assert has_marker(DataConfig(format="elpv"), "labels.csv")


def test_every_domain_needs_its_marker(root, tmp_path):
    (tmp_path / "target").mkdir()
    config = DataConfig(source=[str(root)], target=str(tmp_path / "target"))
    (root / "_SUCCESS").touch()
    assert not has_marker(config, "_SUCCESS")
    (tmp_path / "target" / "_SUCCESS").touch()
    assert has_marker(config, "_SUCCESS")
