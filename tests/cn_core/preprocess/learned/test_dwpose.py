"""DWPose: what both networks see, and what becomes of what they say. The networks are ONNX files of constants."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from constant_onnx import constant_network
from controlnet_kit.cn_core.errors import WeightsError
from controlnet_kit.cn_core.preprocess.learned import dwpose
from controlnet_kit.cn_core.preprocess.learned.dwpose import DWPoseDetector, DWPoseSettings

ENTRY = dwpose.ENTRIES[0]
CELLS = 80 * 80 + 40 * 40 + 20 * 20
"""Of YOLOX at 640."""


def candidates(*boxes: tuple[float, float, float, float, float]) -> np.ndarray:
    """YOLOX's output 1 K 85 for boxes (left, top, right, bottom at 640, certainty), all in cells of stride 8."""
    found = np.zeros((1, CELLS, 85), np.float32)
    for left, top, right, bottom, certain in boxes:
        column, row = int((left + right) / 16), int((top + bottom) / 16)
        one = found[0, row * 80 + column]
        one[:2] = (left + right) / 16 - column, (top + bottom) / 16 - row
        one[2:4] = np.log([(right - left) / 8, (bottom - top) / 8])
        one[4:6] = certain, 1
    return found


def bins(places: np.ndarray, count: int, certain: float = 0.9) -> np.ndarray:
    """SimCC's output 1 133 count with one peak for each point."""
    values = np.zeros((1, 133, count), np.float32)
    values[0, np.arange(133), places] = certain
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two people, one of them twice, and a dog; every point in the middle of what RTMPose sees, but for the nose."""
    dog = candidates((100, 100, 200, 200, 0.0))
    dog[0, 5, 4:7] = 1, 0, 1
    people = candidates((40, 80, 200, 400, 0.9), (52, 92, 212, 412, 0.8), (360, 80, 520, 400, 0.6))
    (tmp_path / "yolox_l.onnx").write_bytes(constant_network((1, 3, 640, 640), {"output": np.maximum(people, dog)}))
    middle_x, middle_y = np.full(133, 288), np.full(133, 384)
    middle_x[0], middle_y[0] = 0, 768 - 2
    network = constant_network((1, 3, 384, 288), {"simcc_x": bins(middle_x, 576), "simcc_y": bins(middle_y, 768)})
    (tmp_path / "dw-ll_ucoco_384.onnx").write_bytes(network)
    return tmp_path


@pytest.fixture
def detector(folder: Path) -> DWPoseDetector:
    return dwpose.load((folder / "yolox_l.onnx", folder / "dw-ll_ucoco_384.onnx"))


def test_people_are_found_once_and_their_points_placed(detector: DWPoseDetector) -> None:
    """A picture of 320 by 240 is seen at twice its size."""
    (frame,) = detector.keypoints(torch.zeros(1, 3, 240, 320), DWPoseSettings())
    assert (frame.width, frame.height, len(frame.people)) == (320, 240, 2)
    for person, center in zip(frame.people, ((60, 120), (220, 120)), strict=True):
        assert person.body[2:, :2] == pytest.approx(np.tile(center, (16, 1)), abs=0.5)
        assert person.body[1, :2] == pytest.approx(center, abs=0.5)  # the neck, between the shoulders
        # A box of 80 by 160 grows by a quarter, then to three quarters of its height in width: 150 by 200.
        assert person.body[0, :2] == pytest.approx((center[0] - 75, center[1] + 99.5), abs=0.5)
        assert person.body[:, 2] == pytest.approx(0.9)
        for part, length in (("face", 68), ("left_hand", 21), ("right_hand", 21), ("foot", 6)):
            assert (getattr(person, part)[:length, 2] > 0).all()


def test_settings_choose_people(detector: DWPoseDetector) -> None:
    images = torch.zeros(2, 3, 240, 320)
    settings = {
        2: DWPoseSettings(),
        1: DWPoseSettings(max_people=1),
        0: DWPoseSettings(min_confidence=0.95),
    }
    for count, one in settings.items():
        assert [len(frame.people) for frame in detector.keypoints(images, one)] == [count] * 2
    assert len(detector.keypoints(images, DWPoseSettings(min_confidence=0.7))[0].people) == 1


def test_nobody_is_a_black_picture_and_said(detector: DWPoseDetector, caplog: pytest.LogCaptureFixture) -> None:
    hint = detector(torch.zeros(1, 3, 60, 90, dtype=torch.float16), DWPoseSettings(min_confidence=0.95))
    assert hint.shape == (1, 3, 60, 90) and hint.dtype == torch.float16 and not hint.any()
    assert "nobody in pictures [0]" in caplog.text


def test_people_are_drawn_on_the_pictures_size(detector: DWPoseDetector) -> None:
    images = torch.zeros(2, 3, 241, 323)
    hints = detector(images, DWPoseSettings())
    assert hints.shape == images.shape and hints.any()
    assert torch.equal(hints, torch.cat([detector(image[None], DWPoseSettings()) for image in images]))


def test_without_search_one_person_fills_the_picture(folder: Path) -> None:
    settings = DWPoseSettings(whole_picture=True)
    assert [one.file for one in ENTRY.files(settings)] == ["dw-ll_ucoco_384.onnx"]
    found = dwpose.load((folder / "dw-ll_ucoco_384.onnx",)).keypoints(torch.zeros(1, 3, 100, 60), settings)
    assert len(found[0].people) == 1
    assert found[0].people[0].body[5, :2] == pytest.approx((30, 50), abs=0.5)


def recorder(size: tuple[int, int], answers: list[np.ndarray]) -> Any:
    """What is asked for as in onnxruntime; `seen` has what it was shown."""
    session = SimpleNamespace(seen=[])

    def run(_: None, shown: dict[str, np.ndarray]) -> list[np.ndarray]:
        session.seen.append(shown["input"])
        return answers

    session.run = run
    session.get_inputs = lambda: [SimpleNamespace(name="input", shape=[1, 3, *size])]
    return session


def test_what_the_networks_see() -> None:
    """YOLOX: blue, green, red in 0 to 255, in the corner of a grey square. RTMPose: red, green, blue, normalised."""
    people = recorder((640, 640), [candidates((0, 0, 640, 320, 0.9))])
    points = recorder((384, 288), [bins(np.zeros(133, int), 576), bins(np.zeros(133, int), 768)])
    picture = torch.tensor([1.0, 0.5, 0.0])[None, :, None, None].expand(1, 3, 100, 200)
    DWPoseDetector(people=people, points=points).keypoints(picture, DWPoseSettings())
    (seen,) = people.seen
    assert seen[0, :, 100, 100].tolist() == [0, 127.5, 255] and seen[0, :, 400, 100].tolist() == [114] * 3
    (shown,) = points.seen
    expected = (np.array([255, 127.5, 0]) - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    assert shown[0, :, 192, 144] == pytest.approx(expected, abs=1e-3)


def test_certainty_is_of_the_less_certain_axis() -> None:
    points = dwpose.from_simcc(bins(np.arange(133), 576, 0.8)[0], bins(np.arange(133), 768, 1.7)[0])
    assert points[:, 2] == pytest.approx(0.8) and points[10, 0] == 5.0
    assert dwpose.from_simcc(bins(np.arange(133), 576, 2)[0], bins(np.arange(133), 768, 3)[0])[:, 2].max() == 1


def test_files_that_are_no_networks_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"yolox_l\.onnx.*216746733"):
        ENTRY.open([folder])
    (tmp_path / "yolox_l.onnx").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match=r"yolox_l\.onnx is no network"):
        dwpose.load((tmp_path / "yolox_l.onnx", folder / "dw-ll_ucoco_384.onnx"))
