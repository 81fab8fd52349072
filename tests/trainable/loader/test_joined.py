"""Two packs as one."""

import numpy as np

from trainable.config.trial import DataConfig
from trainable.data.pack import open_pack, open_unlabelled
from trainable.loader.joined import Joined


def test_the_second_packs_images_follow_the_firsts_with_labels_of_their_own(draw_folder, cache, spec):
    root = draw_folder({"a": 9, "b": 9})
    first = open_pack(DataConfig(path=str(root), cache=cache), spec)
    second = open_unlabelled(DataConfig(path=str(root / "b"), cache=cache), spec)
    joined = Joined(first, second, labels=np.full(9, -1))
    assert joined.labels.tolist() == [*first.labels.tolist(), *[-1] * 9]
    assert joined.sample_ids.tolist() == [*first.sample_ids.tolist(), *second.sample_ids.tolist()]
    assert np.array_equal(joined.image(17), first.image(17))
    assert np.array_equal(joined.image(18), second.image(0))
    assert np.array_equal(joined.image(26), second.image(8))
