"""Which images are drawn for scoring."""

from collections import Counter

from pxframe.images.drawing import drawn


def test_images_are_drawn_evenly_over_classes_by_seed():
    labels = [0] * 500 + [1] * 30 + [2] * 5
    chosen = drawn(len(labels), 21, labels, seed=0)
    assert len(set(chosen)) == 21
    assert Counter(labels[i] for i in chosen) == {0: 8, 1: 8, 2: 5}
    assert drawn(len(labels), 21, labels, seed=0) == chosen != drawn(len(labels), 21, labels, seed=1)
