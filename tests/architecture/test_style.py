"""What docs/style.md promises of the code, as far as it can be counted."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for tree in ("search", "trainable") for path in (ROOT / tree).rglob("*.py"))
TREES = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in FILES}
LONGEST_BODY = 40  # lines
USUAL_BODY, USUAL_SHARE = 15, 0.9
POOR_BEGINNINGS = ("The same", "Those", "Its ")


def functions():
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield f"{name}:{node.lineno} {node.name}", node


def body_lines(function):
    """Lines of the body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def dataclasses():
    """Every dataclass with its decorator and its own fields; by name, so that inherited fields can be found."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for decorator in node.decorator_list:
                    called = decorator.func if isinstance(decorator, ast.Call) else decorator
                    if isinstance(called, ast.Name) and called.id == "dataclass":
                        fields = [line for line in node.body if isinstance(line, ast.AnnAssign)]
                        yield f"{name}:{node.lineno} {node.name}", node, decorator, len(fields)


def is_set(decorator, option):
    words = decorator.keywords if isinstance(decorator, ast.Call) else []
    return any(word.arg == option and getattr(word.value, "value", None) is True for word in words)


def test_a_dataclass_of_more_than_three_fields_takes_them_by_keyword():
    own = {node.name: count for _, node, _, count in dataclasses()}
    found = [
        where
        for where, node, decorator, count in dataclasses()
        if count + sum(own.get(getattr(base, "id", ""), 0) for base in node.bases) > 3
        and not is_set(decorator, "kw_only")
    ]
    assert found == []


def test_bodies_are_short():
    lengths = {where: body_lines(node) for where, node in functions()}
    assert [where for where, length in lengths.items() if length > LONGEST_BODY] == []
    assert sum(length < USUAL_BODY for length in lengths.values()) >= USUAL_SHARE * len(lengths)


@pytest.mark.parametrize("beginning", POOR_BEGINNINGS)
def test_no_docstring_begins_with_what_only_the_lines_above_explain(beginning):
    found = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node) or ""
                if text.startswith(beginning):
                    found.append(f"{name}:{getattr(node, 'lineno', 1)}")
    assert found == []


def test_no_file_is_longer_than_one_can_hold_in_mind():
    lengths = {name: (ROOT / name).read_text().count("\n") for name in TREES}
    assert {name: length for name, length in lengths.items() if length > 400 and "config/trial" not in name} == {}


def test_the_parts_of_a_package_are_named_by_their_modules_alone():
    full = [name for name in TREES if name.endswith("__init__.py") and (ROOT / name).read_text().strip()]
    assert full == ["search/notebook/__init__.py", "trainable/__init__.py"]  # which name what a user imports
