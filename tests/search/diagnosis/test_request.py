import pytest

from search.diagnosis.request import Request, is_written
from trainable.errors import UserError


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("path/to/images", "images"),
        ("photos/my cells (new)/", "my-cells-new"),
        ("lists/tiles.csv", "tiles"),
        ("s3://bucket/cells", "cells"),
        ("/", "images"),
    ],
)
def test_a_search_is_called_as_its_images(data, name):
    assert Request(data=data).search_name == name
    assert str(Request(data=data).file) == f"{name}.yaml"
    assert Request(data=data, name="mine").search_name == "mine"


def test_a_folder_that_is_where_one_is_has_its_name(tmp_path, monkeypatch):
    (tmp_path / "tiles").mkdir()
    monkeypatch.chdir(tmp_path / "tiles")
    assert Request(data=".").search_name == "tiles"


def test_the_command_is_what_was_typed_but_for_the_minutes():
    request = Request(data="my cells", model="resnet18", weights="random", overrides=("data.image_size=32",))
    assert request.command() == (
        "python -m search auto 'my cells' --model resnet18 --weights random --set data.image_size=32"
    )


def test_a_file_is_that_of_the_command_whose_words_it_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = Request(data="cells")
    assert not is_written(request)
    (tmp_path / "cells.yaml").write_text(f"# cells\n#   {request.command()}\n")
    assert is_written(request)
    for other in (Request(data="cells", model="resnet18"), Request(data="more/cells")):
        with pytest.raises(UserError, match="^cells.yaml: is there already and not of this command; --name gives"):
            is_written(other)
    with pytest.raises(UserError, match="^--name my cells: the search is called as its file"):
        is_written(Request(data="cells", name="my cells"))
