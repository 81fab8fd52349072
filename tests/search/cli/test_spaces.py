import os
import subprocess
import sys

import pytest

from search.cli.app import PROGRAM, main
from search.space.loading import load


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """The code with which a command ends and what it says."""

    def run(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["search", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    return run


def test_a_new_space_is_written_once_and_over_by_force(call, tmp_path):
    said = "space: mine.yaml; to look at it: python -m search check mine.yaml --data path/to/images\n"
    assert call("new", "mine.yaml", "--model", "resnet18") == (0, said)
    assert load(tmp_path / "mine.yaml").base["model.name"] == "resnet18"
    changed = ("new", "mine.yaml", "--like", "mobilenet", "--data", "images")
    code, said = call(*changed)
    assert (code, said) == (2, "error: mine.yaml: is there already, with other contents; --force writes over it\n")
    assert call(*changed, "--force") == (0, "space: mine.yaml; to look at it: python -m search check mine.yaml\n")
    assert load(tmp_path / "mine.yaml").base["data.path"] == "images"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("mine.txt",), "mine.txt: a space file ends in .yaml"),
        (("mine.yaml", "--like", "vot"), "--like vot: no shipped space"),
        (("mine.yaml", "--model", "resnet5O"), "model.name: unknown timm architecture 'resnet5O'; did you mean"),
        (("mine.yaml", "--set", "optimizer.learning=1"), "--set optimizer.learning: unknown path"),
        (("mine.yaml", "--minutes", "-1"), "mine.yaml: search.budget.minutes: got -1.0"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(call, tmp_path, words, line):
    code, said = call("new", *words)
    assert code == 2
    assert said.startswith(f"error: {line}")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_effect_in_a_new_space_is_noted(call):
    code, said = call("new", "mine.yaml", "--set", "augment.mix_probability=0.5")
    assert code == 0
    assert said.startswith("note: base.augment.mix_probability: has no effect")


def complete(words, *, program):
    """What a shell is told of a command that is not complete yet."""
    environment = os.environ | {f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE": "complete_bash"}
    environment |= {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    return found.stdout.split(), found.stderr


def test_a_shell_completes_commands_and_shipped_spaces_without_what_computes():
    program = (
        f"import sys; sys.argv = [{PROGRAM!r}]\nfrom search.cli.app import main\ntry: main()\n"
        "finally: print(*sorted({'torch', 'timm', 'ray', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    assert complete([PROGRAM, "comp"], program=program) == (["compare"], "\n")
    assert complete([PROGRAM, "new", "a.yaml", "--like", "mob"], program=program) == (["mobilenet"], "\n")


def test_the_completion_that_is_shown_is_that_of_the_program(call):
    code, said = call("--show-completion", "bash")
    assert code == 0
    assert f"complete -o default -F _finetune_search_completion {PROGRAM}\n" in said
