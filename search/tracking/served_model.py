"""The served model as MLflow loads it: an encoded image in, its class out.

MLflow executes a copy of this file that lies in the model's own folder, so nothing of the project may be imported here.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class ImageClassifier(PythonModel):
    """Takes encoded images, alone or as a table's first column; gives ``label``, ``score``, ``top_k`` and ``top_k_scores``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network of the package that lies beside this file."""
        folder = Path(context.artifacts["package"])
        self._decoding = _own_module(folder / "decode.py")
        serving = _own_module(folder / "classifier.py")
        self._classifier = serving.Classifier(folder, decode=self._decoding.decode)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row for each image; ``params``: how many classes to name, how many images at once."""
        settings = {"top_k": 5, "batch_size": 32} | (params or {})
        for name, value in settings.items():
            if value < 1:
                raise MlflowException.invalid_parameter_value(f"{name}: got {value}, must be 1 or more")
        try:
            probabilities = self._classifier.probabilities(
                list(model_input.iloc[:, 0]), batch_size=settings["batch_size"]
            )
        except self._decoding.BadImageError as error:
            raise MlflowException.invalid_parameter_value(f"image: cannot be used ({error})") from error
        classes = np.array(self._classifier.classes)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : settings["top_k"]]
        scores = np.take_along_axis(probabilities, best, axis=1)
        return pd.DataFrame(
            {
                "label": classes[best[:, 0]],
                "score": scores[:, 0],
                "top_k": classes[best].tolist(),
                "top_k_scores": scores.tolist(),
            }
        )


def _own_module(path: Path) -> ModuleType:
    """A module of this model alone, whatever other models hold one of the same name; leaves no compiled file behind."""
    module = ModuleType(path.stem)
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


set_model(ImageClassifier())
