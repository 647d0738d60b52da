"""Networks of controlnet_aux with random weights at their real size: our detectors against the package's own calls."""

import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from controlnet_kit.cn_core.errors import WeightsError
from controlnet_kit.cn_core.preprocess.learned import (
    controlnet_hed,
    line_networks,
    mlsd_torch,
    normal_bae,
    pidinet,
    teed,
)
from controlnet_kit.cn_core.preprocess.learned.aux_package import aux_module
from controlnet_kit.cn_core.preprocess.learned.detector import Detector, LearnedPreprocessor
from torch import Tensor, nn

SIDE = 64
ENTRIES: dict[str, LearnedPreprocessor[Any]] = {
    entry.name: entry
    for file in (controlnet_hed, pidinet, teed, line_networks, mlsd_torch, normal_bae)
    for entry in file.ENTRIES
}


def plain(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return tensors


def parallel(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {f"module.{key}": value for key, value in tensors.items()}


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a network is built, how its public file wraps its weights, and how the package calls it."""

    build: Callable[[], nn.Module]
    wrap: Callable[[dict[str, Tensor]], dict[str, Any]] = plain
    call: Callable[[Any, np.ndarray], np.ndarray]
    levels: float = 1.01
    """Of 255: the package cuts to whole levels, once or twice."""


def anime_unet() -> nn.Module:
    norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    return aux_module("lineart_anime").UnetGenerator(3, 1, 8, 64, norm_layer=norm, use_dropout=False)


def bae() -> nn.Module:
    ratios = SimpleNamespace(mode="client", architecture="BN", sampling_ratio=0.4, importance_ratio=0.7)
    return aux_module("normalbae.nets.NNET").NNET(ratios)


def call(detector: Any, picture: np.ndarray, **values: Any) -> np.ndarray:
    return detector(picture, detect_resolution=SIDE, image_resolution=SIDE, output_type="np", **values)


def call_teed(network: nn.Module, picture: np.ndarray) -> np.ndarray:
    return aux_module("teed").TEEDdetector(network)(picture, detect_resolution=SIDE, output_type="np")


CASES = {
    "controlnet_hed": Case(
        build=lambda: aux_module("hed").ControlNetHED_Apache2(),
        call=lambda network, picture: call(aux_module("hed").HEDdetector(network), picture),
    ),
    "pidinet": Case(
        build=lambda: aux_module("pidi.model").pidinet(),
        wrap=lambda tensors: {"state_dict": parallel(tensors), "epoch": 19},
        call=lambda network, picture: call(aux_module("pidi").PidiNetDetector(network), picture),
    ),
    "teed": Case(build=lambda: aux_module("teed.ted").TED(), call=call_teed),
    "lineart_realistic": Case(
        build=lambda: aux_module("lineart").Generator(3, 1, 3),
        call=lambda network, picture: call(aux_module("lineart").LineartDetector(network, None), picture),
    ),
    "lineart_anime": Case(
        build=anime_unet,
        wrap=parallel,
        call=lambda network, picture: call(aux_module("lineart_anime").LineartAnimeDetector(network), picture),
        levels=5,  # what the package stretches to the network's size has whole levels as well
    ),
    "normal": Case(
        build=bae,
        wrap=lambda tensors: {"model": parallel(tensors), "epoch": 3},
        call=lambda network, picture: call(aux_module("normalbae").NormalBaeDetector(network), picture),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    """Nothing may be fetched: to connect is an error."""
    with pytest.MonkeyPatch.context() as patch:

        def refused(*_: object) -> None:
            raise AssertionError("a preprocessor reached for the network")

        patch.setattr(socket.socket, "connect", refused)
        yield


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """2 3 64 64 of whole levels, as the package's calls take them."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(2, 3, 9, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return smooth.mul(255).round() / 255


@pytest.fixture(scope="module", params=CASES)
def named(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def loaded(named: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Detector]:
    """The package's network with random weights, and our detector from the file that it was saved in."""
    torch.manual_seed(5)
    network = CASES[named].build().eval()
    path = tmp_path_factory.mktemp(named) / "weights.pth"
    torch.save(CASES[named].wrap(network.state_dict()), path)
    return network, ENTRIES[named].load((path,))


def run(detector: Detector, images: Tensor, name: str) -> Tensor:
    settings = ENTRIES[name].settings()
    with torch.inference_mode():
        return detector(images, settings)


def test_equals_the_package(loaded: tuple[nn.Module, Detector], named: str, pictures: Tensor) -> None:
    network, detector = loaded
    ours = run(detector, pictures, named)
    for picture, hint in zip(pictures, ours, strict=True):
        theirs = CASES[named].call(network, picture.mul(255).byte().movedim(0, -1).numpy())
        expected = torch.from_numpy(theirs.copy()).movedim(-1, 0)
        assert (hint * 255 - expected).abs().max() <= CASES[named].levels
    assert ours.std() > 1e-4  # it does depend on the picture


def test_a_batch_is_its_pictures(loaded: tuple[nn.Module, Detector], named: str, pictures: Tensor) -> None:
    detector = loaded[1]
    single = torch.cat([run(detector, picture[None], named) for picture in pictures])
    torch.testing.assert_close(run(detector, pictures, named), single, rtol=0, atol=2e-4)


@pytest.mark.parametrize("size", [(37, 51), (1, 1)])
def test_odd_sizes_come_back(
    loaded: tuple[nn.Module, Detector], named: str, pictures: Tensor, size: tuple[int, int]
) -> None:
    images = pictures[:1, :, : size[0], : size[1]].half()
    hint = run(loaded[1], images, named)
    assert hint.shape == images.shape and hint.dtype == images.dtype
    assert hint.isfinite().all() and hint.min() >= 0 and hint.max() <= 1


def test_networks_are_as_a_host_wants_them(loaded: tuple[nn.Module, Detector]) -> None:
    (network,) = loaded[1].modules
    assert not network.training and not any(weight.requires_grad for weight in network.parameters())
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}


def test_the_package_itself_is_not_imported(loaded: tuple[nn.Module, Detector]) -> None:
    """It would import every detector, and fail beside a new MediaPipe."""
    assert loaded and "controlnet_aux" not in sys.modules


@pytest.fixture(scope="module")
def edge_detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """ControlNetHED with random weights that make edges of all strengths."""
    torch.manual_seed(11)
    network = aux_module("hed").ControlNetHED_Apache2()
    with torch.no_grad():
        for block in (network.block1, network.block2, network.block3, network.block4, network.block5):
            block.projection.weight.mul_(8)
    path = tmp_path_factory.mktemp("edges") / "weights.pth"
    torch.save(network.state_dict(), path)
    return ENTRIES["controlnet_hed"].load((path,))


def test_safe_and_scribble(edge_detector: Detector, pictures: Tensor) -> None:
    settings = controlnet_hed.SoftEdgeNetworkSettings
    safe = edge_detector(pictures, settings(safe=True))
    assert set(safe.unique().tolist()) <= {0.0, 0.5, 1.0}
    scribble = edge_detector(pictures, settings(scribble=True))
    assert set(scribble.unique().tolist()) <= {0.0, 1.0}


def test_anyline_is_teed_under_line_art(tmp_path: Path, pictures: Tensor) -> None:
    """A screen blend in floats; the package's own is in bytes, which wrap around."""
    torch.manual_seed(2)
    torch.save(aux_module("teed.ted").TED().state_dict(), tmp_path / "weights.pth")
    both = ENTRIES["anyline"].load((tmp_path / "weights.pth",))
    edges = ENTRIES["teed"].load((tmp_path / "weights.pth",))(pictures, teed.TEEDSettings())
    without = both(pictures, teed.AnyLineSettings(smallest=10000))
    torch.testing.assert_close(without, edges)
    everything = both(pictures, teed.AnyLineSettings(smallest=0))
    assert (everything >= edges - 1e-6).all() and (everything > edges + 0.1).any()


def test_anyline_leaves_out_specks() -> None:
    frame = np.ones((64, 64, 3), np.float32)
    frame[10, 10:50] = 0  # a line of 40 pixels
    frame[40:42, 40:42] = 0  # a speck
    lines = teed.fine_lines(frame, teed.AnyLineSettings())
    assert lines[10, 20] > 0.3 and lines[40:42, 40:42].max() == 0
    assert teed.fine_lines(frame, teed.AnyLineSettings(smallest=0))[41, 41] > 0.3


@pytest.fixture(scope="module")
def mlsd(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Detector]:
    torch.manual_seed(1)
    network = aux_module("mlsd.models.mbv2_mlsd_large").MobileV2_MLSD_Large().eval()
    path = tmp_path_factory.mktemp("mlsd") / "weights.pth"
    torch.save({key: value for key, value in network.state_dict().items() if "num_batches" not in key}, path)
    return network, ENTRIES["mlsd_torch"].load((path,))


def test_mlsd_finds_the_lines_of_the_package(mlsd: tuple[nn.Module, Detector], pictures: Tensor) -> None:
    network, _ = mlsd
    settings = mlsd_torch.MLSDTorchSettings(score_threshold=0.3, distance_threshold=0.01)
    for picture in pictures:
        pixels = picture.mul(255).byte().movedim(0, -1).numpy()
        with torch.no_grad():
            theirs = aux_module("mlsd.utils").pred_lines(pixels, network, [SIDE, SIDE], 0.3, 0.01)
            whole = torch.cat([picture * 2 - 1, torch.full((1, SIDE, SIDE), 1 / 127.5 - 1)])
            ours = mlsd_torch.found(network(whole[None])[0], settings).numpy()
        assert len(ours) == len(theirs) > 3
        order = [np.lexsort(lines.round(2).T) for lines in (ours, theirs)]
        np.testing.assert_allclose(ours[order[0]], theirs[order[1]], atol=0.01)


def test_mlsd_draws_for_each_picture(mlsd: tuple[nn.Module, Detector], pictures: Tensor) -> None:
    detector = mlsd[1]
    settings = mlsd_torch.MLSDTorchSettings(score_threshold=0.3, distance_threshold=0.01)
    images = pictures[:, :, :50, :61]
    with torch.inference_mode():
        hints = detector(images, settings)
        single = torch.cat([detector(image[None], settings) for image in images])
    assert hints.shape == images.shape and set(hints.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(hints, single)
    nothing = detector(images, mlsd_torch.MLSDTorchSettings(score_threshold=1.0))
    assert nothing.shape == images.shape and not nothing.any()


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_a_missing_file_is_named_with_its_remedy(name: str, tmp_path: Path) -> None:
    entry = ENTRIES[name]
    with pytest.raises(WeightsError, match=rf"{entry.files()[0].file}.*preprocessors fetch {name}"):
        entry.open([tmp_path])


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    entry = ENTRIES["teed"]
    path = tmp_path / entry.weights[0].file
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(WeightsError, match=r"7_model\.pth.*sha256"):
        entry.open([tmp_path])
    with pytest.raises(WeightsError, match=r"7_model\.pth is neither"):
        entry.load((path,))
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"7_model\.pth does not fit TED.*missing: block_1"):
        entry.load((path,))


def test_coarse_lines_are_another_file() -> None:
    entry = ENTRIES["lineart_realistic"]
    files = [entry.files(line_networks.LineartRealisticSettings(coarse=coarse)) for coarse in (False, True)]
    assert [[one.file for one in some] for some in files] == [["sk_model.pth"], ["sk_model2.pth"]]
