from trainable.config.trial import DataConfig
from trainable.data.describe import DataDescription, describe


def test_describe_counts_without_decoding(draw_folder):
    root = draw_folder({"train/cat": 2, "train/dog": 1, "test/cat": 1, "test/dog": 1})
    for image in root.rglob("*.png"):
        image.write_bytes(b"not an image")
    counts = {"train": {"cat": 2, "dog": 1}, "test": {"cat": 1, "dog": 1}}
    assert describe(DataConfig(path=str(root))) == DataDescription(
        num_images=5, classes=("cat", "dog"), counts=counts, domains=()
    )


def test_describe_names_the_domains():
    assert describe(DataConfig(format="elpv")).domains == ("mono", "poly")
