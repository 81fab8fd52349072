"""Reads the solar cells of the `elpv-dataset` package (Deitsch et al. 2019)."""

from importlib.util import find_spec
from pathlib import Path

from trainable.config.trial import DataConfig
from trainable.data.readers.sample import Found, Sample, file_reader
from trainable.errors import UserError


def read_elpv(_path: str, config: DataConfig) -> Found:
    """Electroluminescence images, `defective` by ``config.elpv_rule``; the domain is the module type, mono or poly."""
    labels = elpv_folder() / "labels.csv"
    samples = []
    for line in labels.read_text().splitlines():
        name, probability, module_type = line.split()
        label = "defective" if _is_defective(float(probability), rule=config.elpv_rule) else "functional"
        file = str(labels.parent / name)
        samples.append(
            Sample(
                name=name,
                label=label,
                split=None,
                group=None,
                domain=module_type,
                file=file,
                read_bytes=file_reader(file),
            )
        )
    return Found(samples, [str(labels), *(sample.file for sample in samples)])


def elpv_folder() -> Path:
    """Where the package keeps labels and images. Raises UserError where it is not installed."""
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise UserError("data.format: elpv needs the package elpv-dataset; pip install '.[demo]'")
    return Path(spec.origin).parent / "data"


def _is_defective(probability: float, *, rule: str) -> bool:
    return probability > 0 if rule == "prob>0" else probability >= 0.5
