import pytest

from trainable.data.readers.image_paths import find_files
from trainable.errors import UserError


@pytest.fixture
def root(tmp_path):
    for name in ("img/0.png", "img/1.png", "img/2.jpg", "other/9.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def found(names, root, **options):
    files, findings = find_files(names, folder=str(root), **options)
    return [file.removeprefix(f"{root}/") for file in files], [finding.line() for finding in findings]


def test_paths_that_lead_to_files_are_taken_as_they_stand(root):
    assert found(["img/0.png", str(root / "img/1.png")], root) == (["img/0.png", "img/1.png"], [])


@pytest.mark.parametrize(
    ("names", "how"),
    [
        (["img\\0.png", "img\\1.png"], "with slashes"),
        (["C:\\Users\\me\\img\\0.png", "C:\\Users\\me\\img\\1.png"], "with slashes and without their first 3 parts"),
        (["/home/someone/img/0.png", "/home/someone/img/1.png"], "without their first 3 parts"),
        (["img/0", "img/1"], "with the suffix of the image there"),
        (["0.png", "1.png"], "in '{root}/img'"),
        (["0", "1"], "in '{root}/img' and with the suffix of the image there"),
        (["img/0.png", "img/1"], "with the suffix of the image there"),
    ],
)
def test_paths_of_another_machine_or_program_are_read_where_they_have_one_meaning(root, names, how):
    files, (line,) = found(names, root)
    assert files == ["img/0.png", "img/1.png"]
    assert f"image names were read {how.format(root=root)}, such as" in line


def test_images_may_lie_in_several_folders_below_each_in_one(root):
    files, (line,) = found(["0.png", "9.png"], root)
    assert files == ["img/0.png", "other/9.png"]
    assert "2 of 2 image names were read in whichever folder below holds them, such as '0.png' as " in line
    files, (line,) = found(["x\\1", "x\\9"], root)
    assert files == ["img/1.png", "other/9.png"]
    assert "with slashes and in whichever folder below holds them and with the suffix of the image there" in line
    (root / "other" / "0.png").write_bytes(b"")
    with pytest.raises(
        UserError, match="image '0.png' may be '.*img/0.png' or '.*other/0.png'; write the folders into"
    ):
        found(["0.png", "1.png", "9.png"], root)


def test_letters_of_addresses_and_suffixes_in_another_case_are_read(root):
    (root / "img" / "my cat.png").write_bytes(b"")
    assert found(["img/my%20cat.png", "img/1.png"], root)[0] == ["img/my cat.png", "img/1.png"]
    assert "with `%20` decoded" in found(["file:///home/someone/img/my%20cat.png"], root)[1][0]
    assert found(["img/0.PNG", "img/1.Png", "img/2.JPG"], root)[0] == ["img/0.png", "img/1.png", "img/2.jpg"]
    assert found(["img/2.png"], root) == (["img/2.png"], [])  # which may be a mask


def test_one_name_that_leads_nowhere_leaves_all_as_they_stand(root):
    assert found(["img\\0.png", "img\\7.png"], root) == (["img\\0.png", "img\\7.png"], [])
    assert found([], root) == ([], [])
    names = ["7", "0", "1", "2"]
    files, (line,) = found(names, root)
    assert files == names
    assert line == (
        f"3 of 4 image names that lead nowhere could be read in '{root}/img' and with the suffix of the image there, and 1 not, "
        "such as '7'; take those out of the list, or add their images"
    )


def test_two_meanings_are_a_question_that_a_key_answers(root):
    (root / "other" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"can be read in '.*img' or in '.*other'; `data.images` says in which folder"):
        found(["0.png"], root)
    assert found(["0.png"], root, preferred="other")[0] == ["other/0.png"]
    (root / "img" / "0.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"image 'img/0' may be '0.jpg' or '0.png'; write the suffixes into the list"):
        found(["img/0"], root)
