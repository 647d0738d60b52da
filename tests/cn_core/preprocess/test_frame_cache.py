"""The cache of hints: one picture changed, one hint made."""

import torch
from controlnet_kit.cn_core.preprocess.frame_cache import FrameCache
from torch import Tensor


class Counting:
    """Doubles pictures, and counts them."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        return images * 2


def test_only_what_changed_is_made_anew():
    cache, make, images = FrameCache(), Counting(), torch.rand(6, 3, 8, 8)
    assert torch.equal(cache.run(images, "double", make), images * 2)
    images[3] += 1
    assert torch.equal(cache.run(images, "double", make), images * 2)
    cache.run(images.flip(0), "double", make)
    cache.run(images, "other settings", make)
    assert make.seen == [6, 1, 6]


def test_equal_pictures_are_made_once_and_shapes_and_types_differ():
    cache, make = FrameCache(), Counting()
    same = torch.zeros(1, 3, 4, 8).expand(5, -1, -1, -1)
    assert cache.run(same, 0, make).shape == (5, 3, 4, 8)
    cache.run(torch.zeros(1, 3, 8, 4), 0, make)
    cache.run(torch.zeros(1, 3, 4, 8, dtype=torch.float16), 0, make)
    assert make.seen == [1, 1, 1]


def test_the_least_recently_used_go_first():
    size = torch.zeros(3, 8, 8).nbytes
    cache, make = FrameCache(capacity=2 * size), Counting()
    one, two, three = torch.rand(3, 1, 3, 8, 8)
    for image in (one, two, one, three, one, two):
        cache.run(image, 0, make)
    assert len(make.seen) == 4 and len(cache.hints) == 2


def test_a_batch_that_does_not_fit_is_right_all_the_same():
    cache, images = FrameCache(capacity=100), torch.rand(4, 3, 8, 8)
    assert torch.equal(cache.run(images, 0, Counting()), images * 2) and not cache.hints


def test_what_is_kept_is_nobody_elses():
    cache, images = FrameCache(), torch.rand(2, 3, 8, 8)
    first = cache.run(images, 0, Counting())
    first.zero_()
    assert torch.equal(cache.run(images, 0, Counting()), images * 2)
