import io
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from trainable.config.trial import DataConfig
from trainable.data.pack import open_pack
from trainable.data.readers.sample import SPLITS
from trainable.data.report import DROPPED, examine
from trainable.errors import OutageError, UserError


def encoded(number, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def lines(report):
    return [finding.line() for finding in report.findings]


def test_a_clean_data_set_is_three_lines(draw_folder):
    report = examine(DataConfig(path=str(draw_folder({"cat": 6, "dog": 6}))))
    assert report.lines() == [
        "12 images of 2 classes",
        "splits: train 8, val 2, test 2 (val and test cut by data.split_seed)",
        "classes: cat 6, dog 6",
    ]
    assert (report.files, report.used, report.bad, report.left_out, report.mistakes) == (12, 12, 0, {}, [])


def test_a_report_agrees_with_the_pack_that_is_built(draw_folder, cache, spec):
    root = draw_folder({"cat": 8, "dog": 6, "owl": 1})
    shutil.copy(root / "cat/0.png", root / "dog/9.png")
    (root / "cat" / "bad.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("")
    config = DataConfig(path=str(root), cache=cache, on_bad_image="skip", duplicates="keep_first", rare="drop")
    report, pack = examine(config), open_pack(config, spec)
    assert pack.report == report.as_dict()
    assert report.counts == pack.counts()
    assert report.left_out == {".txt": 1, DROPPED: 2}
    assert (report.files, report.used, report.bad) == (18, len(pack), 1)
    assert open_pack(config, spec).report == report.as_dict()  # found, not built


def test_what_decoding_loses_is_counted_with_an_example_and_the_key_that_decides(draw_folder):
    root = draw_folder({"cat": 4, "dog": 4})
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:, ::2, 0] = 200
    Image.fromarray(clear).save(root / "cat/clear.png")
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(root / "dog/detector.png")
    Image.new("L", (1, 100)).save(root / "dog/thin.png")
    Image.new("CMYK", (8, 8)).save(root / "dog/print.jpg")
    assert lines(examine(DataConfig(path=str(root)))) == [
        "1 image more than 16 times as long as wide (their middle is used), such as 'dog/thin.png'",
        "1 image in grey of 16 bits of which 12 or fewer are used (scaled as 16 bits, so almost black), such as "
        "'dog/detector.png'; `data.bit_depth: 12` makes them as bright as they are",
        "1 image in CMYK (converted to RGB without a colour profile), such as 'dog/print.jpg'",
        "1 image with transparency (laid on black), such as 'cat/clear.png'",
        "1 image with colours under fully transparent pixels (not seen), such as 'cat/clear.png'",
    ]


def test_bad_and_large_images_are_mistakes_that_keys_allow(draw_folder):
    root = draw_folder({"cat": 5, "dog": 5})
    (root / "cat" / "bad.png").write_bytes(b"no image")
    Image.new("1", (400, 400)).save(root / "dog" / "large.png")
    report = examine(DataConfig(path=str(root), max_pixels=10_000))
    assert report.mistakes == [
        "data.path: 1 image that cannot be decoded, such as 'cat/bad.png' (not an image); `data.on_bad_image: skip` leaves them "
        "out",
        "data.path: 1 image of too many pixels, such as 'dog/large.png' (400×400 pixels, more than the 10,000 that max_pixels "
        "allows); `data.max_pixels` allows more, `data.on_bad_image: skip` leaves them out",
    ]
    skipped = examine(DataConfig(path=str(root), max_pixels=10_000, on_bad_image="skip"))
    assert (skipped.mistakes, skipped.bad, skipped.used) == ([], 2, 10)


def test_test_images_that_are_trained_on_are_counted(draw_folder, cache, spec):
    root = draw_folder({f"{split}/{label}": 3 for split in ("train", "val", "test") for label in ("cat", "dog")})
    shutil.copy(root / "train/cat/0.png", root / "test/cat/9.png")
    report = examine(DataConfig(path=str(root)))
    assert report.known_in_test == 1
    assert "in different splits: what is measured on them was trained on" in lines(report)[0]
    assert open_pack(DataConfig(path=str(root), cache=cache), spec).report["known_in_test"] == 1
    assert examine(DataConfig(path=str(root), duplicates="keep_first")).known_in_test == 0


def test_progress_is_told(draw_folder):
    told = []
    examine(
        DataConfig(path=str(draw_folder({"cat": 40, "dog": 40}))),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (80, 80)
    assert len(told) > 1


def test_of_many_classes_the_largest_and_smallest_are_listed(draw_folder):
    report = examine(DataConfig(path=str(draw_folder({f"c{i:02}": 3 + (i == 7) for i in range(30)}))))
    assert report.lines()[2].startswith("classes: c07 4, c00 3, c01 3, c02 3, c03 3, c04 3, … (18 more), c24 3")


NAMES = ("a.png", "b.JPG", "c.gif", "._a.png", "notes.txt", "d", "a_mask.png", ".DS_Store", "Thumbs.db", "deep/e.png")
FLAT = {(label, f"{i}.png"): 10 * number + i for number, label in enumerate(("cat", "dog")) for i in range(5)}
GIVEN = {
    (f"{split}/{label}", "0.png"): 10 * number + index
    for number, split in enumerate(("Training", "VALID", "test_set"), start=1)
    for index, label in enumerate(("cat", "dog"))
}
FOLDERS_OF = {
    "flat": ("cat", "dog", "Cat", "cat/@eaDir", "cat/__MACOSX", "dog/images", "dog/masks", "lost+found", "."),
    "given": ("Training/cat", "VALID/cat", "test_set/dog", "Training/Cat", "test_set/owl", "VALID", "docs", "__MACOSX", "."),
    "none": ("cat", "dog", "Cat", "train/cat", "train/dog", "test/cat", "test/dog", "Valid/cat", "images", "masks", "train"),
}  # fmt: skip
CONTENTS = (0, 1, 2, 3, 4, 5, 6, 7, "bad", "exif")


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(("flat", "given", "flat", "given", "none")),
    files=st.dictionaries(
        st.tuples(st.integers(0, 11), st.sampled_from(NAMES)), st.sampled_from(CONTENTS), min_size=1, max_size=20
    ),
    loops=st.lists(st.tuples(st.integers(0, 11), st.sampled_from((".", "..", "../cat"))), max_size=2),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "layout": st.sampled_from(("auto", "classes", "splits")),
            "labels": st.sampled_from(("exact", "normalised")),
            "duplicates": st.sampled_from(("error", "warn", "keep_first")),
            "rare": st.sampled_from(("error", "drop", "merge", "train_only")),
            "on_bad_image": st.sampled_from(("error", "skip")),
            "min_images": st.integers(1, 4),
        },
    ),
)
def test_any_tree_of_folders_is_reported_on_or_refused_in_one_line_and_its_numbers_add_up(kind, files, loops, fields):
    folders = FOLDERS_OF[kind]
    base = {"flat": FLAT, "given": GIVEN, "none": {}}[kind]
    files = base | {(folders[index % len(folders)], name): content for (index, name), content in files.items()}
    loops = [(folders[index % len(folders)], target) for index, target in loops]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for (folder, name), content in files.items():
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_content(content))
        links = [
            root / folder / f"link{number}" for number, (folder, _) in enumerate(loops) if (root / folder).is_dir()
        ]
        for link, (_, target) in zip(links, loops, strict=False):
            link.symlink_to(target)
        dangling = sum(not link.exists() for link in links)  # counted as files that are no images
        _holds(DataConfig(path=place, **fields), num_files=len(files) + dangling)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 11),
            st.sampled_from(("cat", "dog", "Cat ", "1", "1.0")),
            st.sampled_from(("train", "val", "Test")),
            st.sampled_from(("p", "q", "r", "s", "")),
        ),
        max_size=12,
    ),
    separator=st.sampled_from((",", ";", "\t", ", ")),
    prefix=st.sampled_from(("", "img/", "C:\\data\\", "/home/me/img/")),
    suffix=st.sampled_from((".png", "")),
    encoding=st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "latin-1")),
    columns=st.sampled_from((("split",), ("patient",), ())),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "duplicates": st.sampled_from(("warn", "keep_first")),
            "labels": st.just("normalised"),
            "rare": st.sampled_from(("drop", "merge", "train_only")),
        },
    ),
)
def test_any_list_is_reported_on_or_refused_in_one_line_and_no_image_is_in_two_splits(
    rows, separator, prefix, suffix, encoding, columns, fields
):
    splits = ("train", "train", "train", "val", "Test", "train")
    rows = [*((image, ("cat", "dog")[image % 2], splits[image // 2], f"g{image}") for image in range(12)), *rows]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "img").mkdir()
        for number in range(12):
            (root / "img" / f"{number}.png").write_bytes(encoded(number))
        table = [("image", "label", "split", "patient")]
        table += [(f"{prefix}{image}{suffix}", label, split, group) for image, label, split, group in rows]
        kept = [0, 1, *(table[0].index(column) for column in columns)]
        text = "\n".join(separator.join(row[index] for index in kept) for row in table)
        (root / "list.csv").write_bytes(text.encode(encoding))
        group = {"group_column": "patient"} if "patient" in columns else {}
        _holds(DataConfig(path=str(root / "list.csv"), **group, **fields), num_files=len(rows))


def _content(content):
    if content == "bad":
        return b"no image"
    return encoded(1, "JPEG", exif=b"Exif\0\0no tags") if content == "exif" else encoded(content)


def _holds(config, *, num_files):
    try:
        report = examine(config)
    except (UserError, OutageError) as error:
        if "\n" in str(error):
            raise
        return
    assert all("\n" not in line for line in [*report.lines(), *report.mistakes])
    assert report.used + report.bad + sum(report.left_out.values()) == report.files == num_files
    if report.mistakes:
        return
    assert sum(sum(classes.values()) for classes in report.counts.values()) == report.used
    with tempfile.TemporaryDirectory() as cache:
        pack = open_pack(config.model_copy(update={"cache": cache}), _spec())
        assert pack.report == report.as_dict()
    assert pack.counts() == report.counts
    ids = {split: {*pack.sample_ids[pack.indices(split)].tolist()} for split in SPLITS}
    in_several = Counter(sample_id for split in SPLITS for sample_id in ids[split])
    is_said = any(finding.kind == "in_two_splits" for finding in report.findings)
    if config.duplicates == "keep_first" or not is_said:
        assert max(in_several.values()) == 1


def _spec():
    from trainable.data.input_spec import InputSpec

    return InputSpec(size=8, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_share=1.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_report_decodes_as_training_does(draw_folder, channels):
    root = draw_folder({"cat": 4, "dog": 4})
    np.save(root / "cat" / "x.npy", np.zeros((8, 8, 3), np.uint8))
    report = examine(DataConfig(path=str(root), channels=channels))
    assert len(report.mistakes) == (channels == 1)


def test_what_is_said_of_bad_and_odd_images_is_the_same_where_they_are_trained_on(draw_folder, cache, spec):
    root = draw_folder({"cat": 20, "dog": 20})
    for number in range(5):
        (root / f"cat/bad{number}.png").write_text(f"no image {number}")
        (root / f"dog/film{number}.gif").write_bytes(animation(number))
    config = DataConfig(path=str(root), cache=cache)
    report = examine(config)
    with pytest.raises(UserError) as caught:
        open_pack(config, spec)
    assert report.mistakes == [str(caught.value)]
    assert "such as 'cat/bad0.png' (not an image), 'cat/bad1.png' (not an image), 'cat/bad2.png'" in report.mistakes[0]
    skipping = config.model_copy(update={"on_bad_image": "skip"})
    assert examine(skipping).as_dict() == open_pack(skipping, spec).report


def animation(number):
    buffer = io.BytesIO()
    frames = [Image.open(io.BytesIO(encoded(1000 + 2 * number + frame))) for frame in (0, 1)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def test_the_numbers_add_up_where_a_mistake_leaves_nothing_to_train_on(draw_folder, draw_image):
    root = draw_folder({"cat": 6, "dog": 1})
    (root / "cat/bad.png").write_bytes(b"no image")
    report = examine(DataConfig(path=str(root), on_bad_image="skip"))
    assert len(report.mistakes) == 1
    assert report.counts == {"all": {"cat": 6, "dog": 1}}
    assert (report.files, report.used, report.bad) == (8, 7, 1)
    for number in range(3):
        draw_image(root / f"target/{number}.png", number=100 + number)
    (root / "target/bad.png").write_bytes(b"no image")
    shutil.move(root / "target", root.parent / "target")
    adapting = DataConfig(source=[str(root)], target=str(root.parent / "target"), on_bad_image="skip")
    report = examine(adapting)
    assert (report.files, report.used, report.bad, dict(report.target)) == (12, 10, 2, {"target": 3})
    assert "to adapt to: target 3" in report.lines()


def test_files_left_out_are_named_those_of_programs_last(draw_folder):
    root = draw_folder({"cat": 4, "dog": 4})
    for name in ("cat/Thumbs.db", "dog/Thumbs.db", "cat/notes.txt", "dog/0.png.bak"):
        (root / name).write_text("")
    lines = examine(DataConfig(path=str(root))).lines()
    assert lines[0] == "8 images of 2 classes; left out 4 of 12 files: Thumbs.db 2, .bak 1, .txt 1"
    assert lines[-1] == "note: files left out, such as 'dog/0.png.bak', 'cat/notes.txt', 'cat/Thumbs.db'"


def test_names_of_classes_break_no_line_and_hide_no_blanks(draw_folder):
    lines = examine(DataConfig(path=str(draw_folder({"new\nline": 4, "blank ": 4, "café": 4})))).lines()
    assert lines[2] == r"classes: 'blank ' 4, café 4, 'new\nline' 4"


def test_transparency_that_is_kept_out_is_not_said_as_images_left_out(draw_folder):
    root = draw_folder({"cat": 4, "dog": 4})
    Image.fromarray(np.full((8, 8, 4), 77, np.uint8)).save(root / "cat/clear.png")
    report = examine(DataConfig(path=str(root), background="keep"))
    assert lines(report) == ["1 image with transparency (seen without it), such as 'cat/clear.png'"]


def test_images_that_are_not_used_are_not_decoded_and_stop_nothing(draw_folder, cache, spec):
    root = draw_folder({"cat": 8, "dog": 8, "owl": 1})
    (root / "owl/bad.png").write_bytes(b"no image")
    config = DataConfig(path=str(root), cache=cache, rare="drop")
    report = examine(config)
    assert report.mistakes == []
    assert (report.files, report.used, report.bad, report.left_out) == (18, 16, 0, {DROPPED: 2})
    assert report.as_dict() == open_pack(config, spec).report
    (root / "list.csv").write_text(
        "image,label\n" + "".join(f"{kind}/{i}.png,{kind}\n" for kind in ("cat", "dog") for i in range(8))
    )
    with (root / "list.csv").open("a") as file:
        file.write("cat/bad.gif,cat\n" * 2)
    (root / "cat/bad.gif").write_bytes(b"no image")
    listed = DataConfig(path=str(root / "list.csv"), cache=cache, duplicates="keep_first", on_bad_image="skip")
    report = examine(listed)
    assert (report.files, report.used, report.bad, report.left_out) == (18, 16, 1, {DROPPED: 1})
    assert report.as_dict() == open_pack(listed, spec).report
