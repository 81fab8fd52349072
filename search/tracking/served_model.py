"""The served model as MLflow loads it: an encoded image in, its class out.

MLflow executes a copy of this file that lies in the model's own folder, so nothing of the project may be imported here.
"""

import base64
import binascii
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

MOST_AT_ONCE = 256  # images of a batch: more need memory and save no time
SETTINGS = {"top_k": 5, "batch_size": 32, "probabilities": False}
URL_SAFE = str.maketrans("-_", "+/")


class RefusedError(MlflowException):
    """What cannot be answered, in one sentence; MLflow's server answers 400, and adds none of the data that it was sent."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The sentence alone."""
        return self._sentence

    @message.setter
    def message(self, _: str) -> None:
        """Stay as it is."""


class ImageClassifier(PythonModel):
    """Takes encoded images, as bytes or as base64, alone, in a list or as a table's first column.

    Gives ``label``, ``score``, ``top_k`` and ``top_k_scores``, on request the ``probabilities`` of all classes by name. A model
    that was packaged with a coverage gives the ``plausible`` classes too, and is ``unsure`` where there is not just one.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network of the package that lies beside this file."""
        folder = Path(context.artifacts["package"])
        self._decoding = _own_module(folder / "decode.py")
        serving = _own_module(folder / "classifier.py")
        layers = _own_module(folder / "layers.py")
        self._classifier = serving.Classifier(folder, decode=self._decoding.decode, layers=layers)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row for each image; ``params``: how many classes to name, how many images at once, whether to give all classes."""
        settings = SETTINGS | (params or {})
        for name in ("top_k", "batch_size"):
            if settings[name] < 1:
                raise RefusedError(f"{name}: got {settings[name]}, must be 1 or more")
        images = [_encoded(value, row=row) for row, value in enumerate(_values(model_input))]
        probabilities = self._answer(images, batch_size=min(settings["batch_size"], MOST_AT_ONCE))
        classes = np.array(self._classifier.classes)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : settings["top_k"]]
        scores = np.take_along_axis(probabilities, best, axis=1)
        answers = pd.DataFrame(
            {
                "label": classes[best[:, 0]],
                "score": scores[:, 0],
                "top_k": classes[best].tolist(),
                "top_k_scores": scores.tolist(),
            }
        )
        plausible = self._classifier.plausible(probabilities)
        if plausible is not None:
            order = np.argsort(-probabilities, axis=1, kind="stable")
            answers["plausible"] = [
                classes[row][named[row]].tolist() for row, named in zip(order, plausible, strict=True)
            ]
            answers["unsure"] = plausible.sum(axis=1) != 1
        if settings["probabilities"]:
            answers["probabilities"] = [dict(zip(classes.tolist(), row, strict=True)) for row in probabilities.tolist()]
        return answers

    def _answer(self, images: list[bytes], *, batch_size: int) -> Any:
        try:
            return self._classifier.probabilities(images, batch_size=batch_size)
        except self._decoding.BadImageError as error:
            raise RefusedError(f"image: {self._where(images)} cannot be used ({error})") from error

    def _where(self, images: list[bytes]) -> str:
        """The first row that cannot be decoded."""
        for row, image in enumerate(images):
            try:
                self._classifier.pixels(image)
            except self._decoding.BadImageError:
                return f"row {row}"
        return "a row"


def _values(model_input: Any) -> list[Any]:
    """The images of a table, of a mapping's first entry, of a list or array, or the one that was given alone."""
    if isinstance(model_input, pd.DataFrame):
        return list(model_input.iloc[:, 0])
    if isinstance(model_input, dict):
        model_input = next(iter(model_input.values()), [])
    if isinstance(model_input, list | tuple | np.ndarray):
        return list(np.ravel(np.array(model_input, dtype=object)))
    return [model_input]


def _encoded(value: Any, *, row: int) -> bytes:
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    if isinstance(value, str):
        value = _from_base64(value, row=row)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        raise RefusedError(f"image: row {row} is null")
    if not isinstance(value, bytes | bytearray | memoryview):
        raise RefusedError(f"image: row {row} is {type(value).__name__}, must be bytes, or text in base64")
    if not value:
        raise RefusedError(f"image: row {row} is empty")
    return bytes(value)


def _from_base64(text: str, *, row: int) -> bytes:
    """Standard or URL-safe, with or without padding, line breaks and a `data:` prefix."""
    kept = "".join((text.partition(",")[2] if text.startswith("data:") else text).split()).translate(URL_SAFE)
    try:
        return base64.b64decode(kept.rstrip("=") + "=" * (-len(kept.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(f"image: row {row} is text that is no base64") from None


def _own_module(path: Path) -> ModuleType:
    """A module of this model alone, whatever other models hold one of the same name; leaves no compiled file behind."""
    module = ModuleType(path.stem)
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


set_model(ImageClassifier())
