import pytest

from search.space.writing import LINE, check_place, entry, wrapped, write_space
from trainable.config.strict_yaml import parse
from trainable.errors import UserError

VALUES = {
    "plain": "package:efficientnet-lite0",
    "odd": ['my: "images" #1, ü\n', "null", "true", "1e-3", ""],
    "numbers": [1, 0.5, 1e-05, None, False],
    "long": {"choice": [f"a_backbone_of_many_letters_{index}" for index in range(9)], "when": {"a key": "b"}},
    "paths": {f"some.path.{index}": {"log": [1e-5, 0.1]} for index in range(9)},
}


def test_what_is_written_is_read_back_as_it_was():
    lines = [line for name, value in VALUES.items() for line in entry(name, value)]
    assert parse("\n".join(lines), where="here") == VALUES
    assert max(map(len, lines)) <= LINE
    assert lines[0] == "plain: package:efficientnet-lite0"


def test_a_paragraph_begins_with_its_title():
    first, second = wrapped("Cost", "word " * 30)
    assert first.startswith("# Cost     word word")
    assert second.startswith("#          word word")
    assert len(first) <= LINE < len(first) + len(" word")
    assert (first + second).count("word") == 30


def test_another_file_is_written_over_by_force_alone(tmp_path):
    path = tmp_path / "new" / "mine.yaml"
    for _ in range(2):
        write_space("a: 1\n", path=path, where="--out mine.yaml")
    with pytest.raises(UserError, match="^--out mine.yaml: is there already, with other contents; say so$"):
        write_space("a: 2\n", path=path, where="--out mine.yaml", cure="say so")
    assert path.read_text() == "a: 1\n"
    write_space("a: 2\n", path=path, where="--out mine.yaml", force=True)
    assert path.read_text() == "a: 2\n"


def test_what_is_no_place_for_a_file_is_said_in_a_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^mine: cannot be written \("):
        write_space("a: 1\n", path=tmp_path / "file" / "mine.yaml", where="mine")
    with pytest.raises(UserError, match="^mine: is there already"):
        write_space("a: 1\n", path=tmp_path, where="mine", force=True)
    for name in ("mine.txt", "my space.yaml"):
        with pytest.raises(UserError, match=f"^{name}: "):
            check_place(tmp_path / name, where=name)
