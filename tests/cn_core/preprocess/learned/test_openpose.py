"""OpenPose: what the package finds, in our keypoints; its networks with random weights."""

import os
from pathlib import Path

import pytest
import torch
from controlnet_kit.cn_core.errors import WeightsError
from controlnet_kit.cn_core.preprocess.learned import openpose
from controlnet_kit.cn_core.preprocess.learned.openpose import OpenPoseSettings

ENTRY = openpose.ENTRIES[0]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> openpose.OpenPoseDetector:
    """Of the body alone, from a file as the public one is: names without their first part."""
    torch.manual_seed(3)
    openpose.package()
    network = openpose.aux_module("open_pose.model").bodypose_model()
    path = tmp_path_factory.mktemp("openpose") / "body_pose_model.pth"
    torch.save({key.partition(".")[2]: value for key, value in network.state_dict().items()}, path)
    loaded = openpose.load((path,))
    for key, value in loaded.modules[0].state_dict().items():
        assert torch.equal(value, network.state_dict()[key])
    return loaded


def test_finds_what_the_package_finds(detector: openpose.OpenPoseDetector) -> None:
    images = torch.rand(1, 3, 75, 101, generator=torch.Generator().manual_seed(2))
    pixels = images[0].mul(255).round().byte().movedim(0, -1).numpy()
    theirs = detector.detector.detect_poses(pixels)
    (frame,) = detector.keypoints(images, OpenPoseSettings())
    assert (frame.width, frame.height, len(frame.people)) == (101, 75, len(theirs))
    hint = detector(images.half(), OpenPoseSettings())
    assert hint.shape == images.shape and hint.dtype == torch.float16


def test_points_are_in_pixels_and_certain() -> None:
    module = openpose.package()
    keypoint = module.Keypoint
    body = [None] * 18
    body[0] = keypoint(x=0.5, y=0.25, score=0.12)
    hand = [keypoint(x=-0.01, y=-0.02)] * 20 + [keypoint(x=0.1, y=1.0)]
    found = module.PoseResult(module.BodyResult(body, 1.0, 1), None, hand, None)
    person = openpose.person(found, 200, 100)
    assert person.body[0].tolist() == [100, 25, 1] and not person.body[1:].any()
    assert person.right_hand[20].tolist() == pytest.approx([20, 100, 1]) and not person.right_hand[:20].any()
    assert not person.left_hand.any() and not person.face.any()


def test_files_go_with_the_settings() -> None:
    def named(**values: bool) -> list[str]:
        return [one.file for one in ENTRY.files(ENTRY.configured(values))]

    assert named() == ["body_pose_model.pth"]
    assert named(hands=True, face=True) == ["body_pose_model.pth", "hand_pose_model.pth", "facenet.pth"]
    assert named(face=True) == ["body_pose_model.pth", "facenet.pth"]
    assert all("not commercial" in one.licence for one in ENTRY.weights)


def test_the_environment_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(openpose.MADE_BY_IMPORT, raising=False)
    openpose.package()
    assert openpose.MADE_BY_IMPORT not in os.environ


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"body_pose_model\.pth.*preprocessors fetch openpose_cmu"):
        ENTRY.open([tmp_path])
    path = tmp_path / "body_pose_model.pth"
    path.write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match=r"body_pose_model\.pth does not fit OpenPose's Body"):
        openpose.load((path,))
    torch.save({"conv1_1.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"body_pose_model\.pth does not fit OpenPose's Body"):
        openpose.load((path,))
