"""What there is when a refresh looks: the images and their version, the champion, earlier searches."""

from functools import cached_property
from pathlib import Path

from search.evidence import PACKAGE
from search.ledger import Ledger, LedgerFailsError
from search.overview import is_finished, open_ledger
from search.refresh.measuring import Champion, bad_images, good_images, open_champion
from search.refresh.records import Record, Records, data_of, space_identity
from search.registry import CHAMPION, Registry, Version
from search.spec import SearchSpec, differing
from trainable.config import DataConfig, TrialConfig
from trainable.data.building import bad_images_error
from trainable.data.inventory import Inventory, take_inventory
from trainable.data.sources import read_source
from trainable.data.versions import Difference, difference, read_version, version_of
from trainable.data.versions import Version as DataVersion
from trainable.errors import UserError
from trainable.serving.package import IMAGES

FINGERPRINT = "data.fingerprint"


class Standing:
    """Each part is looked up when it is first asked for, and then once; ``place`` is a folder for what is downloaded."""

    def __init__(self, spec: SearchSpec, *, records: Records, registry: Registry, place: Path) -> None:
        self.spec = spec
        self.records = records
        self.registry = registry
        self._place = place
        self._champions: dict[tuple[int, tuple[int, ...]], Champion] = {}

    @property
    def data(self) -> DataConfig:
        """Which images the search is about."""
        return data_of(self.spec)

    @cached_property
    def inventory(self) -> Inventory:
        """Their content. Raises UserError for data that cannot be used."""
        return take_inventory(read_source(self.data), cache=self.records.inventory)

    @cached_property
    def now(self) -> DataVersion:
        """The version that they are; its file is written when it is first seen."""
        path = self.records.version_file(self.inventory.fingerprint)
        if not path.is_file():
            keep = self._predecessor()
            config = self.data if keep is None else self.data.model_copy(update={"keep_splits": str(keep)})
            path.parent.mkdir(parents=True, exist_ok=True)
            version_of(self.inventory.source, digests=self.inventory.digests, config=config).write(path)
        return read_version(path)

    def before(self, record: Record) -> DataVersion | None:
        """The version that the champion was trained on, else that of the refresh before; None where there is neither."""
        if record.champion is not None:
            path = self.records.version_file(record.champion["fingerprint"])
            return read_version(path) if path.is_file() else self.champion(record).before
        earlier = [one for one in self.records.all() if one.number < record.number]
        return read_version(self.records.version_file(earlier[-1].fingerprint)) if earlier else None

    def change(self, record: Record) -> tuple[Difference, tuple[int, ...]] | None:
        """What is new against :meth:`before`, with the ids of new images that cannot be decoded.

        Raises UserError for such images where ``data.on_bad_image`` is `error`.
        """
        before = self.before(record)
        if before is None:
            return None
        there, known = ({one.sample_id for one in version.present} for version in (self.now, before))
        config = TrialConfig.model_validate(self.spec.trial_config({}))
        bad = bad_images(self.inventory, among=there - known, config=config)
        if bad and self.data.on_bad_image == "error":
            raise bad_images_error([repr(name) for name in bad.values()])
        classes = () if record.champion is None else self.champion(record).served.classes
        return difference(before, self.now, bad=sorted(bad.values()), classes=classes), tuple(sorted(bad))

    def champion(self, record: Record) -> Champion:
        """The champion that a refresh began with."""
        assert record.champion is not None
        return self.opened(self.registry.version(record.champion["version"]), record=record)

    def opened(self, version: Version, *, record: Record) -> Champion:
        """A registered version, its files verified."""
        known = (version.number, record.bad)  # which are not known yet when the first asks
        if known not in self._champions:
            self._champions[known] = open_champion(
                self.registry,
                version,
                folder=self._place / f"version_{version.number}.{len(self._champions)}",
                images=good_images(self.inventory, bad=record.bad),
                before=self.records.version_file(fingerprint_of(version)),
                now=self.now,
            )
        return self._champions[known]

    def search(self, name: str) -> tuple[SearchSpec, Ledger] | None:
        """A search beside this one; None where there is none. Raises LedgerFailsError."""
        try:
            return open_ledger(Path(self.spec.search.folder) / name)
        except LedgerFailsError:
            raise
        except UserError:
            return None

    def finished(self, name: str) -> tuple[SearchSpec, Ledger] | None:
        """The same of a finished one."""
        found = self.search(name)
        return found if found is not None and is_finished(found[1], trials=found[1].trials()) else None

    def searched(self, record: Record) -> str | None:
        """The file's own search, if that has been run on these very images, not by this refresh."""
        name = self.spec.search.name
        found = self.finished(name)
        if found is None or name in record.searches:
            return None
        spec, ledger = found
        is_same = not differing(space_identity(spec), record.identity)
        return name if is_same and ledger.notes["data"]["fingerprint"] == record.fingerprint else None

    def space_changes(self, record: Record) -> list[str] | None:
        """How the space differs from what was searched last, nothing where it does not; None where nothing was searched.

        That is the space of the refresh before, of the file's own search or of the champion's.
        """
        names = [self.spec.search.name, *([record.champion["study"]] if record.champion is not None else [])]
        stored = [space_identity(found[0]) for name in names if (found := self.finished(name)) is not None]
        known = [*(one.identity for one in self.done(record)[-1:]), *stored]
        if any(not differing(one, record.identity) for one in known):
            return []
        return differing(known[0], record.identity) if known else None

    def done(self, record: Record) -> list[Record]:
        """The refreshes before that have ended."""
        return [one for one in self.records.all() if one.state == "done" and one.number < record.number]

    def classes_searched(self, record: Record) -> set[str]:
        """The classes of the images that were searched last, whatever came of it."""
        searched = [one for one in self.done(record) if one.decision is not None and "search" in one.decision["kind"]]
        return set(searched[-1].classes) if searched else set()

    def _predecessor(self) -> Path | None:
        """The splits that are to be kept: of the version before, else of the images that the champion knows."""
        for record in reversed(self.records.all()):
            path = self.records.version_file(record.fingerprint)
            if path.is_file():
                return path.absolute()
        version = self.registry.by_alias(CHAMPION)
        if version is None or fingerprint_of(version) == self.inventory.fingerprint:
            return None
        path = self.records.version_file(fingerprint_of(version))
        path.parent.mkdir(parents=True, exist_ok=True)
        files = self.registry.download(version, folder=self._place / "before")
        read_version(files / PACKAGE / IMAGES).write(path)
        return path.absolute()


def fingerprint_of(version: Version) -> str:
    """Of the data that a registered version was trained on. Raises UserError for one that `promote` did not make."""
    if FINGERPRINT not in version.tags:
        raise UserError(f"{version.uri}: does not say what data it was trained on; only versions made by `promote` do")
    return version.tags[FINGERPRINT]
