"""Small real image data sets for every test."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image

from trainable.data.input_spec import InputSpec

# Two test processes share two cores: one thread each, in them and in what they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts the tests in the background may have it ignored, which every process begun here would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

DrawImage = Callable[..., Path]
DrawFolder = Callable[[Mapping[str, int]], Path]


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """A cache folder that no other test shares."""
    return str(tmp_path / "cache")


@pytest.fixture
def spec() -> InputSpec:
    """16 pixels cut from the middle of 18."""
    return InputSpec(size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bilinear", crop_share=0.875)


@pytest.fixture(scope="session")
def calls_of() -> Callable[[Callable[[], object]], int]:
    """Counts the calls of functions, Python's and C's, that a piece of work makes: what it costs, without a clock."""

    def counted(work: Callable[[], object]) -> int:
        count = 0

        def heard(frame: FrameType, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call") and frame.f_code.co_name != "<genexpr>"  # resumed, not called

        sys.setprofile(heard)
        try:
            work()
        finally:
            sys.setprofile(None)
        return count

    return counted


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with MLflow's tables: making one takes seconds, copying it none."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def cells() -> list[Path]:
    """Real photographs of solar cells, 300×300 grey PNG: the first 40 of the elpv-dataset package."""
    found = find_spec("elpv_dataset")
    assert found is not None
    assert found.origin is not None
    return sorted((Path(found.origin).parent / "data" / "images").glob("*.png"))[:40]


@pytest.fixture(scope="session")
def draw_image() -> DrawImage:
    """Writes an image of noise around a colour; another ``number`` gives another image."""

    def draw(path: Path, *, number: int, size: tuple[int, int] = (24, 20)) -> Path:
        generator = np.random.default_rng(number)
        colour = generator.integers(40, 215, 3)
        pixels = np.clip(colour + generator.integers(-30, 30, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return draw


@pytest.fixture(scope="session")
def cell_folder(tmp_path_factory: pytest.TempPathFactory, cells: list[Path]) -> Path:
    """40 real cells in two folders by their order, which no network can learn but any can train on."""
    root = tmp_path_factory.mktemp("cells")
    for index, path in enumerate(cells):
        folder = root / ("defective" if index % 3 == 0 else "functional")
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    return root


@pytest.fixture
def draw_folder(tmp_path: Path, draw_image: DrawImage) -> DrawFolder:
    """Makes an image folder: ``{"train/a": 3, …}`` says how many images a folder has, each another one."""

    def draw(counts: Mapping[str, int]) -> Path:
        root = tmp_path / "images"
        number = 0
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                draw_image(root / folder / f"{index}.png", number=number)
                number += 1
        return root

    return draw
