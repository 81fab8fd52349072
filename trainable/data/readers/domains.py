"""Joins labelled source domains with the domain to adapt to, whose labels come no further than here."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from trainable.config.trial import DataConfig
from trainable.data.readers.findings import Finding
from trainable.data.readers.sample import Found, Sample, Source, make_source
from trainable.errors import OutageError, UserError, nearest

Read = Callable[[DataConfig], Found]


def join_domains(config: DataConfig, *, read: Read) -> Source:
    """The samples of ``data.source`` with those of ``data.target``, which keep their labels for an oracle alone.

    ``read`` finds the samples of one data set. Raises UserError where there is no such domain, and for a target with
    classes that the source does not have.
    """
    labelled, target = _by_value(config, read=read) if _is_one_set(config) else _by_path(config, read=read)
    unnamed = [sample.name for sample in labelled.samples if not sample.label]
    if unnamed:
        raise UserError(f"data.label_column: {len(unnamed)} source images have no label, the first is {unnamed[0]!r}")
    if not target.samples:
        raise UserError(f"data.target: {config.target!r} has no images")
    files = list(dict.fromkeys([*labelled.files, *target.files]))
    source = make_source(labelled._replace(files=files))
    if config.oracle and not all(sample.label for sample in target.samples):
        raise UserError(f"data.oracle: reads the target's labels, and images of {config.target!r} have none")
    findings = [*labelled.findings, *_compared(source.classes, target.samples)]
    left_out = Counter(labelled.left_out)
    if target.files is not labelled.files:
        findings += target.findings
        left_out.update(target.left_out)
    samples = target.samples if config.oracle else [replace(sample, label=None) for sample in target.samples]
    return replace(source, target=tuple(samples), findings=tuple(findings), left_out=dict(left_out))


def data_sets(config: DataConfig) -> list[tuple[str, DataConfig]]:
    """The data sets that are read, each with the field it stands in: `path`, or every `source` and the `target`."""
    if _is_one_set(config):
        return [("path", config)]
    paths = [*(("source", path) for path in config.source), ("target", str(config.target))]
    return [(field, _own_config(config, path=path, field=field)) for field, path in paths]


@contextmanager
def naming(field: str) -> Iterator[None]:
    """A line about a path names the field that the path stands in."""
    try:
        yield
    except (UserError, OutageError) as error:
        kind = UserError if isinstance(error, UserError) else OutageError
        raise kind(str(error).replace("data.path:", f"data.{field}:", 1)) from error


def _is_one_set(config: DataConfig) -> bool:
    return config.target is None or bool(config.path) or config.format == "elpv"


def _compared(classes: Sequence[str], target: Sequence[Sample]) -> tuple[Finding, ...]:
    """What the user should know about the target's classes, where it has labels: no number comes of them."""
    present = {sample.label for sample in target if sample.label}
    foreign = sorted(present - set(classes))
    if foreign:
        names = ", ".join(map(repr, foreign))
        raise UserError(
            f"data.target: has classes that the source does not, {names} (an open set); leave those images out, or give the "
            "target without labels, as a folder without class folders"
        )
    absent = [name for name in classes if name not in present]
    if not present or not absent:
        return ()
    names = ", ".join(map(repr, absent))
    text = f"data.target: no image of it is labelled {names} (a partial set), which methods that align domains can suffer by"
    return (Finding(kind="partial_set", count=len(absent), text=text),)


def _by_value(config: DataConfig, *, read: Read) -> tuple[Found, Found]:
    """Of one data set the samples of the sources and those of the target."""
    data = read(config)
    domains = sorted({sample.domain for sample in data.samples if sample.domain is not None})
    if not domains:
        raise UserError(
            f"data.target: {config.target!r} is a value of data.domain_column, and there is none; where the domains are data "
            "sets of their own, name them in data.source and data.target without data.path"
        )
    if len(domains) == 1:
        raise UserError(f"data.domain_column: has one value, {domains[0]!r}; adapting needs a second domain")
    sources = config.source or [domain for domain in domains if domain != config.target]
    named = {"target": [config.target or ""], "source": sources}
    for field, values in named.items():
        for value in values:
            if value not in domains:
                hint = nearest(value, domains) or f"; there are {', '.join(domains)}"
                raise UserError(f"data.{field}: there is no domain {value!r}{hint}")
    labelled = [sample for sample in data.samples if sample.domain in sources]
    target = [sample for sample in data.samples if sample.domain == config.target]
    return data._replace(samples=labelled), data._replace(samples=target)


def _by_path(config: DataConfig, *, read: Read) -> tuple[Found, Found]:
    """The samples of several data sets, each a domain."""
    *sources, target = [_read(data_set, field=field, read=read) for field, data_set in data_sets(config)]
    labelled = Found(
        [sample for source in sources for sample in source.samples],
        [file for source in sources for file in source.files],
        tuple(finding for source in sources for finding in source.findings),
        dict(sum((Counter(source.left_out) for source in sources), Counter())),
    )
    if len({sample.split is None for sample in labelled.samples}) > 1:
        raise UserError(
            "data.source: some of the data sets bring splits of their own, some do not; give all of them or none"
        )
    return labelled, target


def _own_config(config: DataConfig, *, path: str, field: str) -> DataConfig:
    target = path if field == "target" else None
    return config.model_copy(update={"path": path, "source": [], "target": target, "domain_column": None})


def _read(config: DataConfig, *, field: str, read: Read) -> Found:
    """One domain's data set, of which every image is said to be."""
    with naming(field):
        data = read(config)
    return data._replace(samples=_named(data, domain=config.path))


def _named(data: Found, *, domain: str) -> list[Sample]:
    return [
        replace(
            sample,
            domain=domain,
            name=f"{domain}/{sample.name}",
            group=None if sample.group is None else f"{domain}/{sample.group}",
        )
        for sample in data.samples
    ]
