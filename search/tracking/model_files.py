"""The files of a registered model: written, loaded, asked."""

import hashlib
import sys
from collections.abc import Sequence
from importlib.metadata import version as version_of
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, Map
from numpy.typing import NDArray
from PIL import Image

PINNED = ("torch", "torchvision", "timm", "safetensors", "pillow", "numpy", "pandas", "mlflow")
SERVED = Path(__file__).with_name("served_model.py")
EVERY_CLASS = 1_000_000
SHOWN_IMAGE = 32  # pixels of the example, a grey square: no image of the data goes into the registry


class BadInputError(Exception):
    """What a model was given is no image."""


def save_model(package: Path, *, folder: Path) -> None:
    """A package as an MLflow model in ``folder``, which must not exist: code, safetensors and JSON, nothing pickled."""
    mlflow.pyfunc.save_model(
        path=str(folder),
        python_model=str(SERVED),
        artifacts={"package": str(package)},
        signature=_signature(),
        input_example=pd.DataFrame({"image": [_example()]}),
        pip_requirements=[f"{name}=={version_of(name).partition('+')[0]}" for name in PINNED],
    )


def load(path: Path) -> PyFuncModel:
    """A model whose files were verified; none is added to them."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        model: PyFuncModel = mlflow.pyfunc.load_model(str(path))
        return model
    finally:
        sys.dont_write_bytecode = before


def classify(model: PyFuncModel, images: Sequence[bytes], *, top_k: int) -> list[dict[str, Any]]:
    """For each encoded image ``label``, ``score``, ``top_k``, ``top_k_scores``, and ``plausible`` and ``unsure`` where the model
    says so. Raises BadInputError where one is none.
    """
    try:
        frame: Any = model.predict(pd.DataFrame({"image": list(images)}), params={"top_k": top_k})
    except MlflowException as error:
        raise BadInputError(str(error)) from error
    rows: list[dict[str, Any]] = frame.to_dict("records")
    return rows


def probabilities(model: PyFuncModel, images: Sequence[bytes], *, classes: Sequence[str]) -> NDArray[np.float64]:
    """N×K, the columns in the order of ``classes``; 0 for a class that the model does not know."""
    columns = {name: index for index, name in enumerate(classes)}
    matrix = np.zeros((len(images), len(classes)))
    for row, answer in enumerate(classify(model, images, top_k=EVERY_CLASS) if images else []):
        for name, score in zip(answer["top_k"], answer["top_k_scores"], strict=True):
            if name in columns:
                matrix[row, columns[name]] = score
    return matrix


def size_mb(folder: Path) -> float:
    """Megabytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _signature() -> ModelSignature:
    return ModelSignature(
        # Without a name, so that bytes alone are taken; as `binary` MLflow would decode base64, the standard one alone.
        inputs=Schema([ColSpec(AnyType())]),  # type: ignore[no-untyped-call]
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "score"),
                ColSpec(Array(DataType.string), "top_k"),
                ColSpec(Array(DataType.double), "top_k_scores"),
                ColSpec(Array(DataType.string), "plausible", required=False),
                ColSpec(DataType.boolean, "unsure", required=False),
                ColSpec(Map(DataType.double), "probabilities", required=False),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("top_k", DataType.long, 5),
                ParamSpec("batch_size", DataType.long, 32),
                ParamSpec("probabilities", DataType.boolean, False),
            ]
        ),
    )


def _example() -> bytes:
    file = BytesIO()
    Image.new("L", (SHOWN_IMAGE, SHOWN_IMAGE), 128).save(file, "png")
    return file.getvalue()


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by its path below ``folder``."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
