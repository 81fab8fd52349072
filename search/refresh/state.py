"""What there is when a refresh looks: the images and their version, the champion, earlier searches."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from search.ledger.ledger import Ledger, NoSearchError
from search.ledger.refreshes import Record, Records, data_of, space_identity
from search.ledger.stored import is_finished, open_ledger
from search.promotion.packaged import PACKAGE
from search.refresh.measure import Champion, bad_images, good_images, open_champion
from search.space.identity import identity_difference
from search.space.spec import SearchSpec
from search.tracking.registry import CHAMPION, ModelVersion, Registry
from trainable.config.trial import DataConfig, TrialConfig
from trainable.data.inventory import Inventory, take_inventory
from trainable.data.pack_builder import bad_images_error
from trainable.data.readers.read import read_source
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS
from trainable.data.versions import Difference, Entry, difference, read_version, version_of
from trainable.data.versions import Version as DataVersion
from trainable.errors import UserError
from trainable.serving.package import IMAGES

FINGERPRINT = "data.fingerprint"
TRAINS = ("refit", "warm search", "full search")


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
        """Their content when this was first asked for. Raises UserError for data that cannot be used."""
        return self.inventory_now()

    def inventory_now(self) -> Inventory:
        """Their content as it is now."""
        return take_inventory(read_source(self.data), cache=self.records.inventory)

    @cached_property
    def now(self) -> DataVersion:
        """The version that they are; its file is written when it is first seen.

        Raises UserError where a class would miss in a split.
        """
        path = self.records.version_file(self.inventory.fingerprint)
        if not path.is_file():
            config, known = self.data, self._known()
            if known.entries:
                keep = self._place / "known.parquet"
                known.write(keep)
                config = config.model_copy(update={"keep_splits": str(keep)})
            path.parent.mkdir(parents=True, exist_ok=True)
            version_of(self.inventory.source, digests=self.inventory.digests, config=config).write(path)
        found = read_version(path)
        _check_splits(found)
        return found

    def tried(self, record: Record) -> Record | None:
        """The last refresh that trained something on its images, where no champion has come of it or after it."""
        done = [one for one in self.done(record) if one.decision is not None and one.decision["kind"] in TRAINS]
        if not done:
            return None
        last, champion = done[-1], record.champion
        if champion is None:
            return last if last.after is None else None
        is_newer = last.after is None or champion["version"] > last.after["version"]
        return None if is_newer or champion["fingerprint"] == last.fingerprint else last

    def before(self, record: Record) -> DataVersion | None:
        """The version that was tried last, else that which the champion was trained on, else that of the refresh before.

        None where there is none of them.
        """
        tried = self._tried_version(record)
        if tried is not None:
            return tried
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
        there, known = (version.ids(*SPLITS, *TARGET_SPLITS) for version in (self.now, before))
        config = TrialConfig.model_validate(self.spec.trial_config({}))
        bad = bad_images(self.inventory, among=there - known, config=config)
        tried = self.tried(record)
        bad_before = there & set(tried.bad if tried is not None else ())
        if bad and self.data.on_bad_image == "error":
            raise bad_images_error([repr(name) for name in bad.values()])
        classes = self.champion(record).served.classes if record.champion is not None and tried is None else ()
        found = difference(before, self.now, bad=sorted(bad.values()), classes=classes)
        return found, tuple(sorted({*bad, *bad_before}))

    def champion(self, record: Record) -> Champion:
        """The champion that a refresh began with."""
        assert record.champion is not None
        return self.opened(self.registry.version(record.champion["version"]), record=record)

    def opened(self, version: ModelVersion, *, record: Record) -> Champion:
        """A registered version, its files verified."""
        known = (version.number, record.bad)  # which are not known yet when the first asks
        if known not in self._champions:
            self._champions[known] = open_champion(
                self.registry,
                version,
                folder=self._place / f"version_{version.number}.{len(self._champions)}",
                images=good_images(self.inventory, bad=record.bad),
                before=self.records.version_file(fingerprint_of(version)),
                tried=self._tried_version(record),
                now=self.now,
            )
        return self._champions[known]

    def search(self, name: str) -> tuple[SearchSpec, Ledger] | None:
        """A search beside this one; None where there is none. Raises LedgerFailsError."""
        try:
            return open_ledger(Path(self.spec.search.folder) / name)
        except NoSearchError:
            return None

    def finished(self, name: str) -> tuple[SearchSpec, Ledger] | None:
        """The same of a finished one."""
        found = self.search(name)
        return found if found is not None and is_finished(found[1], trials=found[1].trials()) else None

    def searched(self, record: Record) -> str | None:
        """The file's own search, if that has been run on these very images, not by this refresh."""
        name = self.spec.search.name
        found = None if name in record.searches else self.finished(name)
        return name if found is not None and _is_of(found, record) else None

    def is_of(self, name: str, record: Record) -> bool:
        """Whether there is a search of this name that is of the space and the images of a refresh."""
        found = self.search(name)
        return found is not None and _is_of(found, record)

    def space_changes(self, record: Record) -> list[str] | None:
        """How the space differs from what was searched last, nothing where it does not; None where nothing was searched.

        That is the space of the refresh before, of the file's own search or of the champion's.
        """
        names = [self.spec.search.name, *([record.champion["study"]] if record.champion is not None else [])]
        stored = [space_identity(found[0]) for name in names if (found := self.finished(name)) is not None]
        known = [*(one.identity for one in self.done(record)[-1:]), *stored]
        if any(not identity_difference(one, record.identity) for one in known):
            return []
        return identity_difference(known[0], record.identity) if known else None

    def done(self, record: Record) -> list[Record]:
        """The refreshes before that have ended."""
        return [one for one in self.records.all() if one.state == "done" and one.number < record.number]

    def _tried_version(self, record: Record) -> DataVersion | None:
        tried = self.tried(record)
        return None if tried is None else read_version(self.records.version_file(tried.fingerprint))

    def _known(self) -> DataVersion:
        """Every image whose split is known, of the newest version first; last the champion's own, where no version has them."""
        found: dict[int, Entry] = {}
        for path in self._known_files():
            for entry in read_version(path).entries:
                found.setdefault(entry.sample_id, entry)
        return DataVersion(tuple(found.values()))

    def _known_files(self) -> Iterator[Path]:
        records = self.records.all()
        first = {one.fingerprint: one.number for one in reversed(records)}
        for record in reversed(records):
            path = self.records.version_file(record.fingerprint)
            if path.is_file():
                yield path
                if record.number == first[record.fingerprint]:
                    break  # it was made of all that were before it
        champion = self.registry.by_alias(CHAMPION)
        if champion is not None and fingerprint_of(champion) not in first:
            yield self.registry.download(champion, folder=self._place / "before") / PACKAGE / IMAGES


def _is_of(search: tuple[SearchSpec, Ledger], record: Record) -> bool:
    spec, ledger = search
    is_same = not identity_difference(space_identity(spec), record.identity)
    return is_same and ledger.notes.data.fingerprint == record.fingerprint


def _check_splits(version: DataVersion) -> None:
    there = {(one.label, one.split) for one in version.present}
    for name in version.counts:
        missing = [split for split in SPLITS if (name, split) not in there]
        if missing:
            raise UserError(
                f"data.path: class {name!r} has no image in {' and '.join(missing)}: images that are known keep their split; "
                f"new ones of {name!r} fill it up"
            )


def fingerprint_of(version: ModelVersion) -> str:
    """Of the data that a registered version was trained on. Raises UserError for one that `promote` did not make."""
    if FINGERPRINT not in version.tags:
        raise UserError(f"{version.uri}: does not say what data it was trained on; only versions made by `promote` do")
    return version.tags[FINGERPRINT]
