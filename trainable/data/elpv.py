"""Reads the solar cells of the `elpv-dataset` package (Deitsch et al. 2019)."""

from importlib.util import find_spec
from pathlib import Path

from trainable.config import DataConfig
from trainable.data.source import Sample, Source, make_source
from trainable.errors import UserError


def read_elpv(_path: Path, config: DataConfig) -> Source:
    """Electroluminescence images, `defective` by ``config.elpv_rule``; the domain is the module type, mono or poly."""
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise UserError("data.format: elpv needs the package elpv-dataset; pip install '.[demo]'")
    folder = Path(spec.origin).parent / "data"
    samples = []
    for line in (folder / "labels.csv").read_text().splitlines():
        name, probability, module_type = line.split()
        label = "defective" if _is_defective(float(probability), rule=config.elpv_rule) else "functional"
        samples.append(Sample(name, label, None, None, module_type, (folder / name).read_bytes))
    return make_source(samples, files=[folder / "labels.csv", *(folder / sample.name for sample in samples)])


def _is_defective(probability: float, *, rule: str) -> bool:
    return probability > 0 if rule == "prob>0" else probability >= 0.5
