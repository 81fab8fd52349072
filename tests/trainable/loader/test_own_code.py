import sys

import pytest

from trainable.errors import UserError
from trainable.loader.own_code import allow_code, find_code, import_code, permission


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the folder of the command, which leaves a trace where its code runs."""
    name = "own_views_of_a_test"
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nSIDE = 3\ndef black(image): return image * 0\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def complaint(call, path):
    with pytest.raises(UserError) as caught:
        call(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", [None, "", "0", "no"])
@pytest.mark.parametrize("call", [find_code, import_code])
def test_no_code_of_a_settings_file_runs_where_nobody_has_allowed_it(own, tmp_path, monkeypatch, call, value):
    monkeypatch.delenv("SEARCH_ALLOW_CODE", raising=False)
    if value is not None:
        monkeypatch.setenv("SEARCH_ALLOW_CODE", value)
    assert "--allow-code" in complaint(call, f"{own}:black")
    assert not (tmp_path / "ran").exists()


def test_allowed_code_is_looked_up_without_running_it_and_imported(own, tmp_path, monkeypatch):
    monkeypatch.setenv("SEARCH_ALLOW_CODE", "1")
    find_code(f"{own}:black")
    assert not (tmp_path / "ran").exists()
    assert import_code(f"{own}:black")(2) == 0
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["white", "SIDE"])
def test_a_function_that_is_not_there_is_one_line(own, monkeypatch, name):
    monkeypatch.setenv("SEARCH_ALLOW_CODE", "1")
    assert complaint(import_code, f"{own}:{name}").startswith("augment.custom: ")
    assert "No module named 'no_such_module'" in complaint(import_code, "no_such_module:f")
    assert "cannot import" in complaint(import_code, "torchvision.no_such_module:f")


@pytest.mark.parametrize(
    "path",
    [
        "pickle:loads",
        "builtins:bytes",
        "torch:ravel",
        "torch.hub:load",
        "numpy:load",
        "PIL.Image:open",
        "os:system",
        "__main__:f",
        "own_views",
        ":f",
        "own_views:",
        ".own:f",
        "own views:f",
        "own:f.g",
    ],
)
@pytest.mark.parametrize("call", [find_code, import_code])
def test_what_is_no_function_of_a_user_s_own_is_refused_though_code_is_allowed(monkeypatch, path, call):
    monkeypatch.setenv("SEARCH_ALLOW_CODE", "1")
    assert "is no function of your own" in complaint(call, path)


def test_the_permission_goes_to_the_processes_that_are_started(monkeypatch):
    monkeypatch.delenv("SEARCH_ALLOW_CODE", raising=False)
    assert permission() == {}
    assert not allow_code(False)
    assert permission() == {}
    monkeypatch.setenv("SEARCH_ALLOW_CODE", "0")
    assert allow_code(True)
    assert permission() == {"SEARCH_ALLOW_CODE": "1"}
