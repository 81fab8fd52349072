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


def test_one_name_that_leads_nowhere_leaves_all_as_they_stand(root):
    assert found(["img\\0.png", "img\\7.png"], root) == (["img\\0.png", "img\\7.png"], [])
    assert found([], root) == ([], [])


def test_two_meanings_are_a_question_that_a_key_answers(root):
    (root / "other" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"can be read in '.*img' or in '.*other'; `data.images` says in which folder"):
        found(["0.png"], root)
    assert found(["0.png"], root, preferred="other")[0] == ["other/0.png"]
    (root / "img" / "0.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"image 'img/0' may be '0.jpg' or '0.png'; write the suffixes into the list"):
        found(["img/0"], root)
