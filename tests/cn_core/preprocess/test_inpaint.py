"""Holes and room: what is not masked stays to the bit; batches of every kind."""

import pytest
import torch
from controlnet_kit.cn_core.errors import HintError
from controlnet_kit.cn_core.preprocess.inpaint import InpaintSettings, OutpaintSettings, inpaint_hint, outpaint


@pytest.mark.parametrize(("pictures", "masks"), [(1, 1), (1, 4), (4, 1), (4, 4)])
@pytest.mark.parametrize(("fill", "value"), [("-1", -1.0), ("black", 0.0)])
def test_holes(pictures, masks, fill, value):
    """controlnet_aux fails with an IndexError for four pictures and one mask."""
    images = torch.rand(pictures, 3, 20, 30) * 1.04 - 0.02
    before = images.clone()
    holes = torch.rand(masks, 20, 30)
    hint = inpaint_hint(images, holes, InpaintSettings(fill=fill))
    assert hint.shape == (max(pictures, masks), 3, 20, 30)
    for index, got in enumerate(hint):
        image, hole = images[index % pictures], holes[index % masks] > 0.5
        assert torch.equal(got[:, ~hole], image[:, ~hole])
        assert (got[:, hole] == value).all()
    assert torch.equal(images, before)


def test_masks_are_resized_and_may_have_a_channel_or_no_batch():
    image = torch.rand(1, 3, 32, 48)
    mask = torch.zeros(16, 24)
    mask[4:12, 6:18] = 1
    hint = inpaint_hint(image, mask, InpaintSettings())
    assert (hint[..., 9:23, 13:35] == -1).all() and torch.equal(hint[..., :7, :], image[..., :7, :])
    assert torch.equal(hint, inpaint_hint(image, mask[None, None], InpaintSettings()))


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        (torch.rand(2, 3, 8, 8), torch.rand(3, 8, 8), "2 pictures and 3 masks"),
        (torch.rand(2, 3, 8, 8), torch.rand(0, 8, 8), r"mask is \(0, 8, 8\)"),
        (torch.rand(2, 3, 8, 8), torch.rand(1, 3, 8, 8), r"mask is \(1, 3, 8, 8\)"),
        (torch.rand(2, 3, 8, 8), torch.full((1, 8, 8), float("nan")), "mask has NaN"),
        (torch.rand(0, 3, 8, 8), torch.rand(1, 8, 8), "pictures are empty"),
    ],
)
def test_what_is_refused(images, masks, expected):
    with pytest.raises(HintError, match=expected):
        inpaint_hint(images, masks, InpaintSettings())


@pytest.mark.parametrize(("overlap", "fill", "value"), [(0, "-1", -1.0), (3, "black", 0.0)])
def test_room(overlap, fill, value):
    images = torch.rand(2, 3, 20, 30)
    settings = OutpaintSettings(left=8, top=0, right=5, bottom=16, overlap=overlap, fill=fill)
    hint, mask, larger = outpaint(images, settings)
    assert hint.shape == larger.shape == (2, 3, 36, 43) and mask.shape == (2, 36, 43)
    assert torch.equal(larger[..., :20, 8:38], images) and torch.equal(
        larger[..., 0, :8], larger[..., 0, 8:9].expand(-1, -1, 8)
    )
    kept = torch.zeros(36, 43, dtype=torch.bool)
    kept[: 20 - overlap, 8 + overlap : 38 - overlap] = True  # at the top nothing is added, so nothing is made anew
    assert torch.equal(mask, (~kept).float().expand(2, -1, -1))
    assert torch.equal(hint[..., kept], larger[..., kept]) and (hint[..., ~kept] == value).all()


def test_no_room_leaves_the_picture_and_too_much_is_refused():
    images = torch.rand(1, 3, 5, 6)
    hint, mask, larger = outpaint(images, OutpaintSettings(right=0))
    assert torch.equal(hint, images) and torch.equal(larger, images) and mask.sum() == 0
    hint, mask, _ = outpaint(images, OutpaintSettings(left=8, right=8, overlap=1024))
    assert (mask == 0).sum() > 0 and torch.equal(hint[..., 10:12], images[..., 2:4])
    with pytest.raises(HintError, match="16390x8197"):
        outpaint(images, OutpaintSettings(left=8192, right=8192, bottom=8192))
