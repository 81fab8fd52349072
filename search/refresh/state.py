"""What a refresh finds: the images and their version, the champion, what was refreshed and searched before."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from search.ledger.refreshes import ChampionMark, Record, Records, data_of, look_at_files
from search.promotion.packaged import open_packaged
from search.refresh.champion import ChampionImages, find_bad_images, good_images
from search.refresh.decision import Facts
from search.refresh.earlier import EarlierSearches
from search.refresh.measure import loss_from
from search.space.spec import SearchSpec
from search.tracking.registry import CANDIDATE, CHAMPION, ROOT, ModelVersion, Registry
from trainable.config.trial import DataConfig, TrialConfig
from trainable.data.inventory import TICK_NS, Inventory, take_inventory
from trainable.data.packaged import IMAGES, PACKAGE
from trainable.data.readers.read import read_source
from trainable.data.readers.sample import SPLITS, TARGET_SPLITS
from trainable.data.report import Look, bad_images_error
from trainable.data.selection import select
from trainable.data.versions import Difference, Entry, difference, read_version, version_of
from trainable.data.versions import Version as DataVersion
from trainable.errors import UserError

FINGERPRINT, STUDY = "data.fingerprint", "search.study"
TRAINS = ("refit", "warm search", "full search")


@dataclass(frozen=True)
class ImagesRead:
    """The content of the images; when the newest file was written, and how all looked, just before they were read."""

    newest: float  # seconds since 1970
    files_text: str
    inventory: Inventory


class Situation:
    """What there is when a refresh begins; each part is looked up when it is first asked for, and then once.

    ``place`` is a folder for what is downloaded. A question about a ``record`` is one about what was there before it.
    """

    def __init__(self, spec: SearchSpec, *, records: Records, registry: Registry, place: Path) -> None:
        self.spec = spec
        self.records = records
        self.registry = registry
        self.searches = EarlierSearches(Path(spec.search.folder))
        self._place = place
        self._champions: dict[tuple[int, tuple[int, ...]], ChampionImages] = {}

    @cached_property
    def data(self) -> DataConfig:
        """The images that the search is about."""
        return data_of(self.spec)

    @cached_property
    def images_read(self) -> ImagesRead:
        """The images when this was first asked. Raises UserError for data that cannot be used."""
        state, text = look_at_files(self.data)
        return ImagesRead(newest=state.newest, files_text=text, inventory=self._take_inventory())

    @property
    def inventory(self) -> Inventory:
        """The content of the images."""
        return self.images_read.inventory

    @cached_property
    def data_version(self) -> DataVersion:
        """The version that the images are; its file is written when it is first seen.

        Raises UserError where a class would miss in a split.
        """
        path = self.version_file
        if not path.is_file():
            config, splits = self.data, self._known_splits()
            if splits.entries:
                keep = self._place / "known.parquet"
                splits.write(keep)
                config = config.model_copy(update={"keep_splits": str(keep)})
            path.parent.mkdir(parents=True, exist_ok=True)
            version_of(self.inventory.source, digests=self.inventory.digests, config=config).write(path)
        version = read_version(path)
        _check_splits(version)
        return version

    @cached_property
    def history(self) -> list[Record]:
        """All refreshes when this was first asked, the oldest first; only their states change meanwhile."""
        return self.records.all()

    @property
    def version_file(self) -> Path:
        """The file of the version that the images are, which keeps their splits."""
        return self.records.version_file(self.inventory.fingerprint)

    def have_settled(self, *, now: float) -> bool:
        """Whether the last file was written so long before ``now``, in seconds, that a later write has a later date."""
        return self.images_read.newest < now - TICK_NS / 1e9

    def have_changed(self) -> bool:
        """Whether the images are others now, by their content where the files look different."""
        looks_same = self.images_read.files_text == look_at_files(self.data)[1]
        return not looks_same and self._take_inventory().fingerprint != self.inventory.fingerprint

    def before(self, record: Record) -> list[Record]:
        """The refreshes before one."""
        return [earlier for earlier in self.history if earlier.number < record.number]

    def done_before(self, record: Record) -> list[Record]:
        """The refreshes before one that have ended."""
        return [earlier for earlier in self.before(record) if earlier.state == "done"]

    def refresh_in_vain(self, record: Record) -> Record | None:
        """The last refresh that trained something on its images, where no champion has come of it or after it."""
        trained = [
            earlier
            for earlier in self.done_before(record)
            if earlier.decision is not None and earlier.decision["kind"] in TRAINS
        ]
        if not trained:
            return None
        last, champion = trained[-1], record.champion
        if champion is None:
            return last if last.after is None else None
        is_newer = last.after is None or champion.version > last.after.version
        return None if is_newer or champion.fingerprint == last.fingerprint else last

    def find_change(self, record: Record) -> tuple[Difference, tuple[int, ...]] | None:
        """Find what is new, with the ids of new images that cannot be decoded; None where there is no version before.

        Raises UserError for such images where ``data.on_bad_image`` is `error`.
        """
        before = self._version_before(record)
        if before is None:
            return None
        current_ids, earlier_ids = (version.ids(*SPLITS, *TARGET_SPLITS) for version in (self.data_version, before))
        config = TrialConfig.model_validate(self.spec.trial_config({}))
        bad = find_bad_images(self.inventory, among=current_ids - earlier_ids, config=config)
        if bad and self.data.on_bad_image == "error":
            raise bad_images_error([Look(name=name, remarks=("bad_image",)) for name in bad.values()], config=self.data)
        in_vain = self.refresh_in_vain(record)
        bad_before = current_ids & set(in_vain.bad if in_vain is not None else ())
        has_older_classes = record.champion is not None and in_vain is None
        classes = self.champion_images(record).model.classes if has_older_classes else ()
        change = difference(before, self.data_version, bad=sorted(bad.values()), classes=classes)
        return change, tuple(sorted({*bad, *bad_before}))

    def finished_search(self, record: Record) -> str | None:
        """The file's own search, if that has been run on these very images, not by this refresh."""
        name = self.spec.search.name
        is_other = name not in record.searches and self.searches.find_finished(name) is not None
        return name if is_other and self.searches.is_of(name, record) else None

    def space_changes(self, record: Record) -> list[str] | None:
        """How the space differs from what was searched last, nothing where it does not; None where nothing was searched.

        That is the space of the refresh before, of the file's own search or of the champion's.
        """
        names = [self.spec.search.name, *([record.champion.study] if record.champion is not None else [])]
        return self.searches.space_changes(record, names=names, done=self.done_before(record))

    def facts(self, record: Record) -> Facts:
        """Collect what is known when the next rung is chosen."""
        champion, change = record.champion, record.difference
        difference = Difference(**change) if change else None
        asked, refit, drift = (record.measured.get(name, {}) for name in ("champion", "refit", "drift"))
        in_vain, space_changes = self.refresh_in_vain(record), self.space_changes(record)
        return Facts(
            has_champion=champion is not None,
            finished_search=self.finished_search(record),
            refresh_in_vain=None if in_vain is None else in_vain.number,
            same_data=champion is not None and champion.fingerprint == record.fingerprint,
            is_new_space=space_changes is None,
            space_changes=tuple(space_changes or ()),
            num_changed=difference.num_changed if difference else 0,
            share_changed=difference.share_changed if difference else 0.0,
            only_removed=difference is not None and difference.only_removed,
            new_classes=tuple(difference.new_classes) if difference else (),
            vanished_classes=tuple(difference.vanished_classes) if difference else (),
            drift=tuple(drift["reasons"]) if drift else None,
            why_drift_unknown=drift.get("note", ""),
            champion_loss=loss_from(asked),
            why_champion_not_asked=asked.get("unasked", ""),
            refit_loss=loss_from(refit),
            why_no_refit=refit.get("unasked", ""),
        )

    def champion_images(self, record: Record) -> ChampionImages:
        """The images by what the champion that a refresh began with knows of them."""
        assert record.champion is not None
        return self.images_of(self.registry.version(record.champion.version), record=record)

    def images_of(self, version: ModelVersion, *, record: Record) -> ChampionImages:
        """The images by what a registered version knows of them, whose files are verified."""
        key = (version.number, record.bad)  # bad images are not known yet when the first asks
        if key not in self._champions:
            folder = self._place / f"version_{version.number}.{len(self._champions)}"
            files = self.registry.download(version, folder=folder)
            kept = self.records.version_file(fingerprint_of(version))
            trained = read_version(kept if kept.is_file() else files / PACKAGE / IMAGES)
            self._champions[key] = ChampionImages(
                model=open_packaged(files, root=Path(version.tags.get(ROOT, "."))),
                good_images=good_images(self.inventory, bad=record.bad),
                trained=trained,
                reference=self._version_in_vain(record) or trained,
                current=self.data_version,
            )
        return self._champions[key]

    def _take_inventory(self) -> Inventory:
        """Take stock of the images, and keep those that are used, as what they are used."""
        inventory = take_inventory(read_source(self.data), cache=self.records.inventory)
        selection = select(inventory.source, digests=inventory.digests, config=self.data)
        return replace(inventory, source=selection.source, digests=selection.digests)

    def _version_before(self, record: Record) -> DataVersion | None:
        """The version that was searched in vain last, else the champion's, else that of the refresh before; None without any."""
        in_vain = self._version_in_vain(record)
        if in_vain is not None:
            return in_vain
        if record.champion is not None:
            path = self.records.version_file(record.champion.fingerprint)
            return read_version(path) if path.is_file() else self.champion_images(record).trained
        earlier = self.before(record)
        return read_version(self.records.version_file(earlier[-1].fingerprint)) if earlier else None

    def _version_in_vain(self, record: Record) -> DataVersion | None:
        in_vain = self.refresh_in_vain(record)
        return None if in_vain is None else read_version(self.records.version_file(in_vain.fingerprint))

    def _known_splits(self) -> DataVersion:
        """Every image whose split is known, of the newest version first; last the champion's own, where no version has them."""
        entries: dict[int, Entry] = {}
        for path in self._files_of_known_splits():
            for entry in read_version(path).entries:
                entries.setdefault(entry.sample_id, entry)
        return DataVersion(tuple(entries.values()))

    def _files_of_known_splits(self) -> Iterator[Path]:
        first = {record.fingerprint: record.number for record in reversed(self.history)}
        for record in reversed(self.history):
            path = self.records.version_file(record.fingerprint)
            if path.is_file():
                yield path
                if record.number == first[record.fingerprint]:
                    break  # it was made of all that were before it
        champion = self.registry.by_alias(CHAMPION)
        if champion is not None and fingerprint_of(champion) not in first:
            yield self.registry.download(champion, folder=self._place / "before") / PACKAGE / IMAGES


def mark_of(version: ModelVersion) -> ChampionMark:
    """What a record keeps of a champion. Raises UserError for one that `promote` did not make."""
    return ChampionMark(
        version=version.number,
        study=version.tags.get(STUDY, ""),
        candidate=version.tags.get(CANDIDATE, ""),
        fingerprint=fingerprint_of(version),
    )


def fingerprint_of(version: ModelVersion) -> str:
    """The fingerprint of the data that a version was trained on. Raises UserError for one that `promote` did not make."""
    if FINGERPRINT not in version.tags:
        raise UserError(f"{version.uri}: does not say what data it was trained on; only versions made by `promote` do")
    return version.tags[FINGERPRINT]


def _check_splits(version: DataVersion) -> None:
    there = {(entry.label, entry.split) for entry in version.present}
    for name in version.counts:
        missing = [split for split in SPLITS if (name, split) not in there]
        if missing:
            raise UserError(
                f"data.path: class {name!r} has no image in {' and '.join(missing)}: images that are known keep their split; "
                f"new ones of {name!r} fill it up"
            )
