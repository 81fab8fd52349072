import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search.space.loading import load, uri_note, with_changes
from search.space.spec import difference
from trainable.config.strict_yaml import read_document
from trainable.errors import SettingsError, UserError

ROOT = Path(__file__).parents[3]
TAG = "tag:yaml.org,2002:python/name:os.system"
TEXT = """
search:    {name: demo, trials: 8}
scheduler: {max_epochs: 9}
base:
  data:  {format: elpv, elpv_rule: prob>0}
  train: {amp: off}
vary:
  optimizer.lr:      {log: [1e-4, 1e-2]}
  model.head:        {choice: [linear, mlp]}
  model.head_hidden: {choice: [64, 256], when: {model.head: mlp}}
  model.dropout:     {choice: [0.0, 0.5], when: {model.head_hidden: 256}}
try_first:
  - {model.head: mlp, model.head_hidden: 256, optimizer.lr: 1e-3}
  - {model.head: mlp, model.head_hidden: 64, optimizer.lr: 1e-3}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text=TEXT):
        (tmp_path / "x.yaml").write_text(text)
        return "x.yaml"

    return write


def mistake(path, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        load(path, *args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_number_without_a_dot_is_a_number(file):
    assert load(file()).vary["optimizer.lr"] == {"log": [0.0001, 0.01]}


def test_off_is_text(file):
    assert load(file()).base["train.amp"] == "off"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 100000.0), ("-2.5e+3", -2500.0), (".5", 0.5), ("5.", 5.0), ("10", 10), ("010", 10), ("-3", -3),
        ("1:30", "1:30"), ("1_000", "1_000"), ("yes", "yes"), ("no", "no"), ("on", "on"), ("true", True), ("False", False),
        ("~", None), ("null", None), ("", None), (".inf", float("inf")), ("-.INF", "-.INF"), ("2024-01-01", "2024-01-01"),
        ("e3", "e3"), ("'1e-3'", "1e-3"), ("0x10", "0x10"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(file, text, value):
    found = read_document(file(f"a: {text}\n"))["a"]
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=100, deadline=None)
def test_every_float_python_writes_is_read_back(tmp_path_factory, number):
    path = tmp_path_factory.mktemp("floats") / "x.yaml"
    path.write_text(f"a: {number!r}\n")
    found = read_document(path)["a"]
    assert found == number
    assert type(found) is float


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: 'a' is given twice"),
        ("a:\n  b: 1\n  b: 2\n", "x.yaml:3: 'b' is given twice"),
        ("a: 1\n1: 2\n", "x.yaml:2: the key 1 must be text"),
        ("a: [1\nb: 2\n", "x.yaml:2: expected ',' or ']', but got ':'"),
        ("a:\n\tb: 1\n", "x.yaml:2: has a tab where YAML takes spaces"),
        ("a: {b: 1\n", "x.yaml:2: expected ',' or '}', but got '<stream end>'"),
        ("a: !!python/name:os.system\n", f"x.yaml:1: could not determine a constructor for the tag '{TAG}'"),
        ("- a\n", 'x.yaml: got ["a"], must be sections with settings'),
        ("", "x.yaml: got null, must be sections with settings"),
        (
            "a: \x00\n",
            'x.yaml: unacceptable character #x0000: special characters are not allowed in "x.yaml", position 3',
        ),
    ],
)
def test_bad_yaml_is_one_line_with_its_place(file, text, line):
    found = mistake(file(text))
    assert found.replace('"<unicode string>"', '"x.yaml"') == line


def test_a_missing_file_is_said():
    assert mistake("nowhere/x.yaml") == "nowhere/x.yaml: no such file"
    assert mistake("spaces/resnets.yaml") == "spaces/resnets.yaml: no such file; did you mean 'spaces/resnet.yaml'?"


def test_a_folder_is_no_file(tmp_path):
    assert mistake(tmp_path) == f"{tmp_path}: cannot be read ([Errno 21] Is a directory: '{tmp_path}')"


def test_all_mistakes_are_listed_the_first_is_the_message(file):
    text = TEXT.replace("trials: 8", "trials: 0").replace("max_epochs", "max_epoch")
    with pytest.raises(SettingsError) as caught:
        load(file(text))
    assert str(caught.value) == "x.yaml: search.trials: got 0, must be a whole number at least 1 or null (and 2 more)"
    assert caught.value.problems == (
        "x.yaml: search.trials: got 0, must be a whole number at least 1 or null",
        "x.yaml: scheduler.max_epochs: missing, must be a whole number at least 1, at most 1000",
        "x.yaml: scheduler.max_epoch: unknown key; did you mean 'max_epochs'?",
    )


def test_the_file_is_named_before_the_path(file):
    text = TEXT.replace("optimizer.lr:      {log: [1e-4, 1e-2]}", "optimizer.lrr:      {log: [1e-5, 1e-6]}")
    assert mistake(file(text)) == "x.yaml: vary.optimizer.lrr: unknown path; did you mean 'optimizer.lr'?"
    text = TEXT.replace("[1e-4, 1e-2]", "[1e-5, 1e-6]")
    assert mistake(file(text)) == "x.yaml: vary.optimizer.lr: upper bound 1e-06 is below lower bound 1e-05"


def test_a_field_of_the_search_can_be_set(file):
    made = load(
        file(),
        ["search.trials=3", "scheduler.max_epochs=27", "search.budget.gpu_hours=1e-1", "resources.gpu=auto"],
    )
    assert (made.search.trials, made.scheduler.max_epochs, made.search.budget.gpu_hours, made.resources.gpu) == (
        3,
        27,
        0.1,
        "auto",
    )


def test_a_value_that_is_set_is_no_longer_varied_nor_in_recipes(file):
    made = load(file(), ["optimizer.lr=1e-3"])
    assert made.base["optimizer.lr"] == 0.001
    assert "optimizer.lr" not in made.vary
    assert made.try_first == [
        {"model.head": "mlp", "model.head_hidden": 256},
        {"model.head": "mlp", "model.head_hidden": 64},
    ]


def test_a_condition_that_holds_now_is_dropped(file):
    made = load(file(), ["model.head=mlp"])
    assert made.vary["model.head_hidden"] == {"choice": [64, 256]}
    assert made.vary["model.dropout"] == {"choice": [0.0, 0.5], "when": {"model.head_hidden": 256}}


def test_what_depends_on_a_condition_that_fails_now_is_gone(file):
    made = load(file(), ["model.head=linear"])
    assert list(made.vary) == ["optimizer.lr"]
    assert made.try_first == [{"optimizer.lr": 0.001}]


def test_a_varied_value_can_be_set_and_leaves_base(file):
    made = load(file(), ["vary.optimizer.lr={log: [1e-3, 1e-1]}", "vary.train.amp={choice: [off, bf16]}"])
    assert made.vary["optimizer.lr"] == {"log": [0.001, 0.1]}
    assert made.vary["train.amp"] == {"choice": ["off", "bf16"]}
    assert "train.amp" not in made.base


def test_a_base_path_may_be_written_with_base(file):
    assert load(file(), ["base.optimizer.lr=1e-3"]) == load(file(), ["optimizer.lr=1e-3"])


def test_later_settings_win(file):
    assert load(file(), ["search.trials=3", "search.trials=4"]).search.trials == 4


def test_other_images_take_the_place_of_the_built_in_set(file):
    made = load(file(), data="my/images")
    assert (made.base["data.path"], made.base["data.format"]) == ("my/images", "auto")
    assert "data.elpv_rule" not in made.base


def test_other_images_keep_a_named_format(file):
    made = load(file(TEXT.replace("format: elpv, elpv_rule: prob>0", "format: manifest")), data="my/images.csv")
    assert (made.base["data.path"], made.base["data.format"]) == ("my/images.csv", "manifest")


def test_trials_and_name_replace_what_the_file_says(file):
    made = load(file(), trials=2, name="again")
    assert (made.search.trials, made.search.name) == (2, "again")
    assert difference(load(file()), made) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lrr=1", "--set optimizer.lrr: unknown path; did you mean 'optimizer.lr'?"),
        ("lr=1", "--set lr: unknown path; did you mean 'optimizer.lr'?"),
        ("searh.trials=1", "--set searh.trials: unknown path; did you mean 'search.trials'?"),
        (
            "vary.optimizer.lrr={log: [1, 2]}",
            "--set vary.optimizer.lrr: unknown path; did you mean 'vary.optimizer.lr'?",
        ),
        (
            "vary.optimizer.lr.log=[1, 2]",
            "--set vary.optimizer.lr.log: unknown path; did you mean 'vary.optimizer.lr'?",
        ),
        ("schedule.name=wsd", "--set schedule.name: is called lr_schedule.name now"),
        ("data.sampler=sqrt", "--set data.sampler: is called data.class_sampling now"),
        ("optimizer=1", "--set optimizer: unknown path; give one of its values, such as optimizer.name"),
        ("train.epochs=3", "--set train.epochs: is set by the search; give scheduler.max_epochs"),
        ("optimizer.lr", "--set optimizer.lr: must be path=value, such as optimizer.lr=1e-3"),
        ("=3", "--set =3: must be path=value, such as optimizer.lr=1e-3"),
        ("optimizer.lr=[1", "--set optimizer.lr:1: expected ',' or ']', but got '<stream end>'"),
        ("optimizer.lr=100", "x.yaml: base.optimizer.lr: got 100, must be a number above 0, at most 10"),
        ("search.trials=many", "x.yaml: search.trials: got 'many', must be a whole number at least 1 or null"),
    ],
)
def test_a_wrong_override_is_one_line(file, override, line):
    assert mistake(file(), [override]) == line


def test_the_order_of_keys_changes_nothing(file):
    straight = load(file())
    document = yaml.safe_load(TEXT.replace("off", "'off'").replace("e-", ".0e-"))
    turned = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(document.items())
    }
    other = load(file(yaml.safe_dump(turned, sort_keys=False)))
    assert other.content_hash() == straight.content_hash()
    assert list(other.space.dimensions) == list(straight.space.dimensions)


def test_a_file_is_checked_without_the_heavy_libraries(file):
    program = f"""
import sys
from search.space.lint import lint
from search.space.loading import load, uri_note, with_changes
lint(load({file()!r}))
print(sorted({{"torch", "ray", "optuna", "mlflow", "numpy", "pandas"}} & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert found.stdout == "[]\n", found.stderr


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("search.storage=postgresql://user:hunter2@host/db", "search.storage"),
        ("search.storage=postgresql://user:hun/ter2@host/db", "search.storage"),
        ("tracking.uri=https://host/?access_token=hunter2", "tracking.uri"),
        ("data.path=s3://key:hunter2@bucket/x", "data.path"),
    ],
)
def test_a_password_in_a_space_file_is_refused_without_saying_it(file, override, path):
    value = override.partition("=")[2]
    texts = {
        "search.storage": TEXT.replace("search:    {", f"search:    {{storage: '{value}', "),
        "tracking.uri": f"{TEXT}tracking: {{uri: '{value}'}}\n",
        "data.path": TEXT.replace("{format: elpv,", f"{{path: '{value}', format: elpv,"),
    }
    for line in (mistake(file(texts[path])), mistake(file(), [override])):
        assert path in line
        assert "PGPASSFILE" in line
        assert "ter2" not in line


def test_a_user_without_a_password_is_kept(file):
    address = "postgresql+psycopg://user@host/db?sslmode=require"
    assert load(file(), [f"search.storage={address}"]).search.storage == address


def bomb(levels=10):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "aliases": (bomb(), "more than 50000 values, aliases"),
        "aliases in a section": ("base:\n" + "\n".join(f"  {line}" for line in bomb().splitlines()), "more than 50000"),
        "a circle": ("base: &a {b: *a}", "or 40 levels"),
        "a circle of lists": ("base: &a [*a, *a]", "more than 50000 values"),
        "depth": ("base: " + "[" * 5000, "or 40 levels"),
        "closed depth": ("base: " + "[" * 60 + "]" * 60, "or 40 levels"),
        "deep mappings": ("base: " + "{a: " * 3000 + "1" + "}" * 3000, "or 40 levels"),
        "digits": ("search: {trials: " + "9" * 5000 + "}", "a number of 5000 digits"),
        "size": ("# " + "x" * 1_000_001, "characters, more than"),
        "an int": ("a: !!int abc", "is not what its tag"),
        "a bool": ("a: !!bool abc", "is not what its tag"),
        "a date": ("a: !!timestamp abc", "is not what its tag"),
        "a float": ("a: !!float abc", "is not what its tag"),
        "merged bomb": ("a: &a {x: 1}\nb: {!!merge <<: [*a, *a]}", "could not determine a constructor"),
    }.values(),
)
def test_a_file_that_is_made_to_be_too_large_is_one_line_at_once(file, text, said):
    began = time.process_time()
    assert said in mistake(file(text))
    assert time.process_time() - began < 3


def test_an_alias_stands_for_what_it_names(file):
    text = TEXT.replace("{log: [1e-4, 1e-2]}", "&rate {log: [1e-4, 1e-2]}") + "# end\n"
    text = text.replace(
        "model.dropout:     {choice: [0.0, 0.5]", "optimizer.weight_decay: *rate\n  model.dropout: {choice: [0.0, 0.5]"
    )
    assert load(file(text)).vary["optimizer.weight_decay"] == {"log": [1e-4, 1e-2]}


def test_a_long_value_is_cut_in_a_message(file):
    assert len(mistake(file(), ["search.trials=" + "x" * 100_000])) < 300


def test_a_tilde_is_the_home_in_every_path_of_a_file_and_of_the_command_line(file, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    text = TEXT.replace("format: elpv, elpv_rule: prob>0", "path: ~/images, cache: ~/cache, source: [~/a], target: ~/b")
    spec = load(
        file(text), ["search.folder=~/searches", "tracking.uri=sqlite:///~/runs.db", "data.keep_splits=~/splits"]
    )
    assert (spec.search.folder, spec.tracking.uri) == ("/home/me/searches", "sqlite:////home/me/runs.db")
    paths = {path: value for path, value in spec.base.items() if path.startswith("data.")}
    assert paths == {
        "data.path": "/home/me/images",
        "data.cache": "/home/me/cache",
        "data.source": ["/home/me/a"],
        "data.target": "/home/me/b",
        "data.keep_splits": "/home/me/splits",
    }
    assert load("x.yaml", data="~/others").base["data.path"] == "/home/me/others"
    assert (
        load("x.yaml", ["vary.model.weights={choice: [~/a.pt, random]}"])
        .validated({"model.weights": "~/a.pt"})
        .model.weights
        == "/home/me/a.pt"
    )


def test_the_address_of_mlflow_is_the_files_or_else_the_environments_and_that_is_said(file, monkeypatch):
    assert load(file()).tracking.uri == "sqlite:///mlflow.db"
    assert uri_note(load(file())) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    spec = load(file())
    assert spec.tracking.uri == "http://mlflow:5000"
    assert uri_note(spec) == "tracking.uri: from MLFLOW_TRACKING_URI of the environment"
    for own in (
        load(file(TEXT + "tracking: {uri: sqlite:///own.db}")),
        load(file(), ["tracking.uri=sqlite:///own.db"]),
    ):
        assert own.tracking.uri == "sqlite:///own.db"
        assert uri_note(own) == "tracking.uri: is given; not from MLFLOW_TRACKING_URI of the environment"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert load(file()).tracking.uri == "sqlite:///mlflow.db"


def test_what_goes_on_takes_other_values_but_stays_where_it_is(file):
    spec = load(file())
    changed = with_changes(spec, ["resources.gpu=0"], data="images", trials=9)
    assert (changed.resources.gpu, changed.base["data.path"], changed.search.trials) == (0, "images", 9)
    for path in ("search.name", "search.folder", "search.storage"):
        with pytest.raises(UserError, match=rf"^--set {path}: a search that has begun stays where it is$"):
            with_changes(spec, [f"{path}=other"])


def test_minutes_take_the_place_of_the_time_that_a_file_gives_and_trials_may_be_left_out(file):
    timed = file(TEXT.replace("trials: 8", "budget: {hours: 2}"))
    assert (load(timed).search.trials, load(timed).search.budget.seconds) == (None, 7200)
    made = load(timed, minutes=30)
    assert (made.search.budget.minutes, made.search.budget.hours, made.search.budget.seconds) == (30, None, 1800)
    again = with_changes(load(timed), minutes=5)
    assert (again.search.budget.seconds, again.search.budget.hours) == (300, None)
    assert difference(made, again) == []


@pytest.mark.parametrize("budget", ["minutes: 5", "hours: 0.5", "gpu_hours: 1", "epochs: 9"])
def test_any_budget_stands_for_the_number_of_trials(file, budget):
    assert load(file(TEXT.replace("trials: 8", f"budget: {{{budget}}}"))).search.trials is None


def test_two_times_by_the_clock_are_one_line(file):
    line = mistake(file(TEXT.replace("trials: 8", "budget: {hours: 2, minutes: 5}")))
    assert line == "x.yaml: search.budget: has minutes: 5 as well as hours: 2; give one of them"


@pytest.mark.parametrize("budget", ["minutes: .inf", "hours: .nan", "gpu_hours: .inf"])
def test_a_budget_that_is_no_finite_number_is_refused(file, budget):
    name, _, value = budget.partition(": .")
    line = mistake(file(TEXT.replace("trials: 8", f"budget: {{{budget}}}")))
    assert line == f"x.yaml: search.budget.{name}: got {value}, must be a number above 0 or null"
