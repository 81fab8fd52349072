import sys

import pytest

from search.cli.app import main


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("nothing", "--no-run"), "data.path: 'nothing' does not exist"),
        (("images", "--minutes", "0"), "--minutes 0: must be above 0"),
        (("images", "--name", "my cells"), "--name my cells: the search is called as its file"),
        (("images", "--name", "other"), "other.yaml: is there already and not of this command"),
        (("images", "--no-run", "--model", "resnet5O"), "model.name: unknown timm architecture 'resnet5O'"),
    ],
)
def test_a_mistake_is_one_line(words, line, tmp_path, draw_folder, monkeypatch, capsys):
    draw_folder({"a": 8, "b": 8})
    (tmp_path / "other.yaml").write_text("# mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["search", "auto", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"error: {line}")
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == ["other.yaml"]
