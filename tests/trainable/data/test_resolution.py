import numpy as np

from trainable.config.trial import DataConfig
from trainable.data.resolution import median_short_side


def test_the_median_of_the_shorter_sides_is_told_and_bad_images_are_passed_over(tmp_path, draw_image):
    for number, size in enumerate([(30, 20), (20, 30), (90, 60), (24, 24), (26, 200)]):
        draw_image(tmp_path / "ab"[number % 2] / f"{number}.png", number=number, size=size)
    (tmp_path / "a" / "bad.png").write_bytes(b"none")
    assert median_short_side(DataConfig(path=str(tmp_path))) == 24


def test_arrays_have_sides_too(tmp_path):
    for number in range(4):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{number}.npy", np.full((12, 40, 5), number, dtype=np.uint8))
    assert median_short_side(DataConfig(path=str(tmp_path), channels=5)) == 12
