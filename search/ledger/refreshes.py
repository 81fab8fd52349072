"""The records of a space's refreshes: one file each, written whole, from which an interrupted one goes on."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from search.space.spec import SearchSpec
from trainable.atomic import make_private_folder, write_beside
from trainable.config.renamed import identity_with_new_names
from trainable.config.trial import DataConfig, TrialConfig
from trainable.data.readers.file_state import QuickState, quick_state
from trainable.errors import UserError
from trainable.json_text import restorable, restored, to_json

FOLDER = "refresh"
JSON_NAMES = {"difference_text": "said"}
KEPT = "base.data.keep_splits"  # each data version has its own
State = Literal["open", "done", "superseded"]


@dataclass(frozen=True, kw_only=True)
class ChampionMark:
    """A champion as it is told from others: its version's number, the search and the candidate that it came from, its data."""

    version: int
    study: str
    candidate: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """One refresh; moments are ISO 8601 in UTC."""

    number: int  # from 1
    key: str  # of space, data and code
    identity: Mapping[str, Any]
    fingerprint: str
    code: str
    began: str
    state: State = "open"
    ended: str | None = None
    champion: ChampionMark | None = None  # before it
    difference: Mapping[str, Any] | None = None
    difference_text: str = ""  # the difference in words
    bad: tuple[int, ...] = ()  # ids of new images that cannot be decoded
    classes: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)  # by rung
    rungs: tuple[Mapping[str, Any], ...] = ()
    decision: Mapping[str, Any] | None = None
    wait: Mapping[str, Any] | None = None  # until when no search may begin, the reason, by which limits
    warm_start: Mapping[str, Any] | None = None
    searches: tuple[str, ...] = ()  # begun by it
    promotions: tuple[Mapping[str, Any], ...] = ()  # tried: search, version, outcome, reasons
    after: ChampionMark | None = None  # the champion after it
    scores: Mapping[str, Any] = field(default_factory=dict)  # of that, on the frozen test set of each data version

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {JSON_NAMES.get(name, name): value for name, value in asdict(self).items()}


class Records:
    """All refreshes of one space file's search, in the folder of that name. One process writes, the lease's holder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    @property
    def inventory(self) -> Path:
        """What is known of the content of the files."""
        return self.folder / "inventory.parquet"

    def version_file(self, fingerprint: str) -> Path:
        """The frozen images and splits of a data version."""
        return self.folder / "versions" / f"{fingerprint[:16]}.parquet"

    def all(self) -> list[Record]:
        """Read them in their order."""
        return [_read(path) for path in sorted(self.folder.glob("[0-9]*.json"))]

    def find(self, key: str) -> Record | None:
        """Read the newest of a key; None where there is none."""
        paths = sorted(self.folder.glob(f"[0-9]*-{key}.json"))
        return _read(paths[-1]) if paths else None

    def save(self, record: Record, **changes: Any) -> Record:
        """Write a record with these changes, and give it back."""
        changed = replace(record, **changes)
        path = self.folder / f"{changed.number:04d}-{changed.key}.json"
        make_private_folder(self.folder)
        with write_beside(path) as file:
            file.write(to_json(restorable(changed.as_dict()), indent=1).encode())
        return _read(path)

    def fingerprint_seen(self, files_text: str) -> str | None:
        """The fingerprint of files that looked like this when their content was read last."""
        path = self.folder / "seen.json"
        seen = json.loads(path.read_text()) if path.is_file() else {}
        return str(seen["fingerprint"]) if seen.get("quick") == files_text else None

    def remember_seen(self, files_text: str, *, fingerprint: str) -> None:
        """Remember the content of files that look like this."""
        with write_beside(self.folder / "seen.json") as file:
            file.write(json.dumps({"quick": files_text, "fingerprint": fingerprint}).encode())


def records_of(spec: SearchSpec) -> Records:
    """The records of a search's refreshes; raises UserError where they may not be read."""
    records = Records(Path(spec.search.folder) / spec.search.name)
    try:
        with os.scandir(f"{records.folder}/."):  # the dot asks for the right to enter, too
            pass
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"search.folder: cannot read {records.folder} ({error.strerror})") from error
    return records


def data_of(spec: SearchSpec) -> DataConfig:
    """The images that a search is about."""
    return TrialConfig.model_validate(spec.trial_config({})).data


def look_at_files(data: DataConfig) -> tuple[QuickState, str]:
    """Give the state of the files, and a text that changes with them or with how they are read; no image is read."""
    state = quick_state(data)
    settings = data.model_dump(mode="json", exclude={"cache", "workers", "prefix_gb"})
    return state, str(blake3(json.dumps([state.key, settings], sort_keys=True).encode()).hexdigest(length=16))


def space_identity(spec: SearchSpec) -> dict[str, Any]:
    """What makes it this search, whatever the version of its images."""
    return {path: value for path, value in spec.identity().items() if path != KEPT}


def space_hash(spec: SearchSpec) -> str:
    """16 hex digits of :func:`space_identity`."""
    return str(blake3(json.dumps(space_identity(spec), sort_keys=True).encode()).hexdigest(length=8))


def code_version() -> str:
    """The version of the program that decides."""
    return version_of("finetune-search")


def key_of(spec: SearchSpec, *, fingerprint: str) -> str:
    """16 hex digits of (space, data, code): what is refreshed once."""
    text = json.dumps([space_hash(spec), fingerprint, code_version()])
    return str(blake3(text.encode()).hexdigest(length=8))


def _read(path: Path) -> Record:
    try:
        document = restored(json.loads(path.read_text()))
        document["identity"] = identity_with_new_names(document["identity"])
        document |= {name: document.pop(written) for name, written in JSON_NAMES.items()}
        for name in ("bad", "rungs", "searches", "promotions"):
            document[name] = tuple(document[name])
        for name in ("champion", "after"):
            document[name] = None if document[name] is None else ChampionMark(**document[name])
        return Record(**document)
    except OSError as error:
        raise UserError(f"search.folder: cannot read {path} ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no record of this version of the program ({error}); move it away") from error
