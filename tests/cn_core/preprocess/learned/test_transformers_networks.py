"""Networks of transformers, small and with random weights: our detectors against the library's own processors."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.errors import WeightsError
from controlnet_kit.cn_core.preprocess.learned import depth_anything, midas, sam, segmentation, zoe_depth
from controlnet_kit.cn_core.preprocess.learned.depth_maps import DepthSettings, depth_maps, network_size, percentile
from controlnet_kit.cn_core.preprocess.learned.detector import Detector, LearnedPreprocessor
from controlnet_kit.cn_core.preprocess.palettes import colours
from small_networks import library, livelier, small_depth_anything, small_sam
from torch import Tensor, nn

ENTRIES: dict[str, LearnedPreprocessor[Any]] = {
    entry.name: entry for file in (depth_anything, midas, sam, segmentation, zoe_depth) for entry in file.ENTRIES
}
SIZES = {"depth": (56, 84), "depth_midas": (64, 64), "depth_zoe": (38, 64)}
"""Those that each network sees without resizing; ZoeDepth's with its margins is 64 by 96."""
SETTINGS: dict[str, dict[str, Any]] = {
    "depth": {"short_side": 56},
    "depth_midas": {},
    "depth_zoe": {"short_side": 64},
    "sam": {"points": 4, "quality": 0.0, "stability": 0.0},
    "segmentation": {"short_side": 64},
    "segmentation_oneformer": {"short_side": 64},
}


def small_midas() -> nn.Module:
    backbone = library.BitConfig(
        global_padding="same",
        layer_type="bottleneck",
        embedding_size=8,
        hidden_sizes=[16, 32, 64],
        depths=[1, 1, 1],
        num_groups=4,
        out_features=["stage1", "stage2", "stage3"],
        embedding_dynamic_padding=True,
    )
    config = library.DPTConfig(
        is_hybrid=True,
        backbone_config=backbone,
        backbone_featmap_shape=[1, 64, 4, 4],
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 32, 32, 32],
        fusion_hidden_size=16,
        neck_ignore_stages=[0, 1],
        reassemble_factors=[1, 1, 1, 0.5],
        readout_type="project",
    )
    return library.DPTForDepthEstimation(config)


def small_zoe() -> nn.Module:
    backbone = library.BeitConfig(
        image_size=64,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        use_relative_position_bias=True,
        reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = library.ZoeDepthConfig(
        backbone_config=backbone,
        backbone_hidden_size=32,
        neck_hidden_sizes=[16, 16, 16, 16],
        fusion_hidden_size=16,
        bottleneck_features=16,
        num_relative_features=16,
        bin_embedding_dim=16,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
        num_attractors=[4, 3, 2, 1],
    )
    return library.ZoeDepthForDepthEstimation(config)


def small_upernet() -> nn.Module:
    backbone = library.ConvNextConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = library.UperNetConfig(
        backbone_config=backbone, hidden_size=16, num_labels=150, auxiliary_in_channels=16, auxiliary_channels=8
    )
    return library.UperNetForSemanticSegmentation(config)


def small_oneformer() -> nn.Module:
    backbone = library.SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = library.OneFormerConfig(
        backbone_config=backbone,
        num_labels=150,
        num_queries=12,
        hidden_dim=32,
        mask_dim=32,
        conv_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        dim_feedforward=32,
        num_attention_heads=2,
        use_task_norm=True,
        is_training=False,
    )
    return library.OneFormerForUniversalSegmentation(config)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "depth": small_depth_anything,
    "depth_midas": small_midas,
    "depth_zoe": small_zoe,
    "sam": small_sam,
    "segmentation": small_upernet,
    "segmentation_oneformer": small_oneformer,
}


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    """Nothing may be fetched: to connect is an error."""
    with pytest.MonkeyPatch.context() as patch:

        def refused(*_: object) -> None:
            raise AssertionError("a preprocessor reached for the network")

        patch.setattr(socket.socket, "connect", refused)
        yield


each_depth = pytest.mark.parametrize("named", SIZES, indirect=True)
each_segmentation = pytest.mark.parametrize("named", ["segmentation", "segmentation_oneformer"], indirect=True)


@pytest.fixture(scope="module", params=BUILDERS)
def named(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(named: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the public repositories have it: config.json and model.safetensors."""
    torch.manual_seed(4)
    path = tmp_path_factory.mktemp(named) / Path(ENTRIES[named].files()[0].file).parent
    network: Any = livelier(BUILDERS[named]())
    network.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def detector(named: str, folder: Path) -> Detector:
    """Opened as a node opens it."""
    return ENTRIES[named].open([folder.parent])


def pictures(size: tuple[int, int]) -> Tensor:
    """2 3 H W of whole levels."""
    coarse = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(6))
    smooth = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return smooth.mul(255).round() / 255


def run(detector: Detector, images: Tensor, name: str, **values: Any) -> Tensor:
    settings = ENTRIES[name].settings(**(SETTINGS[name] | values))
    with torch.inference_mode():
        return detector(images, settings)


def processed(name: str, images: Tensor) -> Tensor:
    """What the library's processors, set as in the public repositories but for the size, make of 8-bit pictures."""
    pixels = list(images.mul(255).byte())
    halves: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if name == "depth_zoe":
        processor: Any = library.ZoeDepthImageProcessor(
            size={"height": 64, "width": 96}, ensure_multiple_of=32, **halves
        )
    elif name == "depth_midas":
        processor = library.DPTImageProcessor(size={"height": 64, "width": 64}, **halves)
    else:
        processor = library.DPTImageProcessor(
            do_resize=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
        )
    return processor(pixels, return_tensors="pt")["pixel_values"]


def expected(name: str, network: Any, images: Tensor) -> Tensor:
    """B H W in [0, 1], near is white, from the library's own calls."""
    with torch.no_grad():
        outputs = network(processed(name, images))
    if name != "depth_zoe":
        low, high = outputs.predicted_depth.amin((1, 2), True), outputs.predicted_depth.amax((1, 2), True)
        return (outputs.predicted_depth - low) / (high - low)
    processor = library.ZoeDepthImageProcessor()
    found = processor.post_process_depth_estimation(outputs, source_sizes=[tuple(images.shape[2:])] * len(images))
    maps = []
    for one in found:
        metres = one["predicted_depth"].numpy()
        near, far = np.percentile(metres, 2), np.percentile(metres, 85)
        maps.append(torch.from_numpy(1 - (metres - near) / (far - near)).clamp(0, 1))
    return torch.stack(maps)


@each_depth
def test_depth_equals_the_librarys(named: str, detector: Detector) -> None:
    """At the size that the network sees; ZoeDepth's percentiles are interpolated there, and not here."""
    images = pictures(SIZES[named])
    ours = run(detector, images, named)
    theirs = expected(named, detector.modules[0], images)
    assert theirs.std() > 0.05
    tolerance = 0.01 if named == "depth_zoe" else 1e-5
    torch.testing.assert_close(ours, theirs[:, None].expand_as(ours).float(), rtol=0, atol=tolerance)


@each_segmentation
def test_classes_equal_the_librarys(named: str, detector: Detector) -> None:
    images = pictures((64, 96))
    network: Any = detector.modules[0]
    inputs = processed(named, images)
    with torch.no_grad():
        if named == "segmentation":
            labels = network(inputs).logits.argmax(dim=1)
        else:
            prompt = torch.tensor([[49406, 518, 10549, 533, 29119, 1550, 49407] + [0] * 70] * 2)
            outputs = network(pixel_values=inputs, task_inputs=prompt)
            post: Any = library.OneFormerImageProcessor.post_process_semantic_segmentation
            labels = torch.stack(post(None, outputs, target_sizes=[(64, 96)] * 2))
    assert len(labels.unique()) > 3
    painted = torch.from_numpy(colours("ADE20K"))[labels].movedim(-1, 1) / 255
    ours = run(detector, images, named)
    assert (ours != painted).any(dim=1).float().mean() < 0.002


def test_a_batch_is_its_pictures_and_odd_sizes_come_back(named: str, detector: Detector) -> None:
    images = pictures((45, 71))
    both = run(detector, images, named)
    single = torch.cat([run(detector, image[None], named) for image in images])
    assert both.shape == images.shape and both.min() >= 0 and both.max() <= 1
    if named.startswith("depth"):
        torch.testing.assert_close(both, single, rtol=0, atol=1e-3)
    else:
        assert (both != single).float().mean() < 0.01
    dot = run(detector, images[:1, :, :1, :1].double(), named)
    assert dot.shape == (1, 3, 1, 1) and dot.dtype == torch.float64 and dot.isfinite().all()


@each_segmentation
def test_labels_are_colours_of_the_palette(named: str, detector: Detector) -> None:
    hint = run(detector, pictures((33, 50)), named).mul(255).round().byte()
    known = {tuple(row) for row in colours("ADE20K").tolist()}
    assert {tuple(pixel) for pixel in hint.movedim(1, -1).flatten(0, 2).tolist()} <= known


@each_depth
def test_one_range_for_a_batch(named: str, detector: Any) -> None:
    """A picture's ends are black and white, or the batch's are; the maps differ by a scale alone."""
    images = pictures(SIZES[named])
    images[1] = 0.5 + 0.05 * images[1]
    alone, together = (run(detector, images, named, normalise=one) for one in ("frame", "batch"))
    assert alone.amin((1, 2, 3)).max() == 0 and alone.amax((1, 2, 3)).min() == 1
    assert together.min() == 0 and together.max() == 1
    raw = torch.cat([detector.raw(image[None], ENTRIES[named].settings(**SETTINGS[named])) for image in images])
    finish = ENTRIES[named].together
    assert finish is not None
    torch.testing.assert_close(finish(raw, ENTRIES[named].settings(normalise="batch")), together, rtol=0, atol=1e-3)
    spans = together.amax((1, 2, 3)) - together.amin((1, 2, 3))
    assert spans.min() < 1
    if named != "depth_zoe":  # whose cut ends are no scale
        small = int(spans.argmin())
        scaled = (together[small] - together[small].min()) / spans[small]
        torch.testing.assert_close(scaled, alone[small], rtol=0, atol=1e-3)


def test_depth_has_more_than_256_levels() -> None:
    ramp = torch.linspace(3, 9, 4096).view(1, 1, 64, 64)
    assert len(depth_maps(ramp, DepthSettings()).unique()) > 4000


def test_depth_of_a_flat_wall_is_black() -> None:
    assert not depth_maps(torch.full((2, 1, 8, 8), 3.0), DepthSettings()).any()


@pytest.mark.parametrize("percent", [0, 2, 85, 100])
def test_percentiles_are_numpys_nearest(percent: float) -> None:
    values = torch.rand(31, 17, generator=torch.Generator().manual_seed(1))
    theirs = np.percentile(values.numpy(), percent, method="nearest")
    assert abs(float(percentile(values, percent)) - theirs) < 0.01


@pytest.mark.parametrize(
    ("picture", "seen"),
    [((512, 512), (518, 518)), ((480, 640), (518, 686)), ((3000, 100), (2072, 70)), ((1, 1), (518,) * 2)],
)
def test_the_size_that_a_network_sees(picture: tuple[int, int], seen: tuple[int, int]) -> None:
    assert network_size(*picture, 518, 14) == seen


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_a_missing_file_is_named_with_its_remedy(name: str, tmp_path: Path) -> None:
    entry = ENTRIES[name]
    with pytest.raises(WeightsError, match=rf"{entry.files()[0].file}.*preprocessors fetch {name}"):
        entry.open([tmp_path])


def test_damaged_files_are_named(named: str, folder: Path, tmp_path: Path) -> None:
    config, weights = (folder / name for name in ("config.json", "model.safetensors"))
    for name, text in (("config.json", config.read_text()), ("model.safetensors", "<html>not found</html>")):
        (tmp_path / name).write_text(text)
    paths = (tmp_path / "config.json", tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=str(tmp_path)):
        ENTRIES[named].load(paths)
    paths[1].write_bytes(weights.read_bytes())
    paths[0].write_text("{")
    with pytest.raises(WeightsError, match=str(tmp_path)):
        ENTRIES[named].load(paths)
    with pytest.raises(WeightsError, match="belong into one folder"):
        ENTRIES[named].load((config, paths[1]))


def test_weights_that_are_not_all_there_are_no_network(named: str, folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    left_out = sorted(tensors)[-1]
    save_file({k: v for k, v in tensors.items() if k != left_out}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(WeightsError, match=r"model\.safetensors does not fit.*1 weights are missing"):
        ENTRIES[named].load((tmp_path / "config.json", tmp_path / "model.safetensors"))


def test_sizes_are_other_files() -> None:
    entry = ENTRIES["depth"]
    names = {entry.files(entry.configured({"model": model}))[1].file for model in depth_anything.WEIGHTS}
    assert len(names) == 6 and "Depth-Anything-V2-Small-hf/model.safetensors" in names
    assert entry.files()[0].licence == "Apache-2.0"
