"""Where the files of a packaged model lie."""

from pathlib import Path

from trainable.errors import UserError

DESCRIPTION, WEIGHTS, IMAGES = "model.json", "weights.safetensors", "images.parquet"
PACKAGE = Path("artifacts/package")  # where it lies in a registered model


def find_package(folder: Path, *, field: str) -> Path:
    """The package that ``folder`` is, or that the registered model in it holds; ``field`` is for the UserError of neither."""
    for package in (folder, folder / PACKAGE):
        if (package / DESCRIPTION).is_file():
            return package
    raise UserError(f"{field}: {folder} is no packaged model, it has no {DESCRIPTION}; name the folder of one")
