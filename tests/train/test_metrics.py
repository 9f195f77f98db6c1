import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from train import metrics
from train.metrics import (
    LEVELS,
    as_batch,
    compare,
    eye_rate,
    face_rate,
    gradient_energy,
    label_scores,
    laplacian_pyramid,
    sliced_wasserstein,
)


def blurred(pictures: list[Image.Image], radius: float) -> list[Image.Image]:
    return [picture.filter(ImageFilter.GaussianBlur(radius)) for picture in pictures]


def grainy(pictures: list[Image.Image], deviation: float) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray((np.asarray(p) + rng.normal(0, deviation, (*p.size[::-1], 3))).clip(0, 255).astype(np.uint8))
        for p in pictures
    ]


@pytest.fixture(scope="module")
def real(building) -> list[Image.Image]:
    return [building(seed)[1] for seed in range(6)]


# --- compare


def test_a_picture_compared_with_itself_is_perfect(portrait):
    pictures = [portrait(seed) for seed in range(2)]
    figures = compare(pictures, pictures)
    assert figures["l1"] == 0
    assert figures["ssim"] == pytest.approx(1, abs=1e-3)
    assert figures["sharpness_ratio"] == pytest.approx(1)


def test_blur_lowers_sharpness_and_similarity(portrait):
    real = [portrait(seed) for seed in range(2)]
    slightly, strongly = (
        compare([picture.filter(ImageFilter.GaussianBlur(radius)) for picture in real], real) for radius in (1, 4)
    )
    assert strongly["sharpness_ratio"] < slightly["sharpness_ratio"] < 1
    assert strongly["ssim"] < slightly["ssim"] < 1
    assert strongly["l1"] > slightly["l1"] > 0


def test_l1_is_a_share_of_the_whole_range():
    black, white = Image.new("RGB", (64, 64), "black"), Image.new("RGB", (64, 64), "white")
    assert compare([black], [white])["l1"] == pytest.approx(1)


def test_face_rate_counts_the_pictures_with_a_face(monkeypatch):
    monkeypatch.setattr(metrics, "find_face", lambda picture: (1, 1, 9, 9) if picture == "face" else None)
    assert face_rate(["face", "wall", "face", "tree"]) == 0.5


def test_eye_rate_counts_the_faces_with_two_eyes(monkeypatch):
    eyes = {"face": [(1, 2), (3, 2)], "pirate": [(1, 2), None], "asleep": [None, None]}
    monkeypatch.setattr(metrics, "find_face", lambda picture: (1, 1, 9, 9) if picture in eyes else None)
    monkeypatch.setattr(metrics, "find_eyes", lambda picture, box: eyes[picture])
    assert eye_rate(["face", "wall", "pirate", "asleep"]) == 0.25


def test_gradient_energy_is_that_of_the_textbook():
    """Steps of 1 down and of 2 to the right, in each channel of each picture."""
    ramp = torch.arange(5.0)[:, None] + 2 * torch.arange(7.0)
    assert gradient_energy(ramp.expand(2, 3, 5, 7)) == pytest.approx(1 + 4)
    assert gradient_energy(torch.full((1, 3, 5, 7), 0.3)) == 0


# --- label_scores


def test_labels_that_are_all_right_score_one():
    labels = torch.randint(0, 5, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    assert label_scores(labels, labels, 12) == pytest.approx({"accuracy": 1, "iou": 1})


def test_scores_are_those_of_the_textbook():
    """Class 0: 2 of 3 pixels found, nothing else taken for it. Class 1: its one pixel, and one too many."""
    labels = torch.tensor([[[0, 0], [0, 1]]])
    predicted = torch.tensor([[[0, 0], [1, 1]]])
    assert label_scores(predicted, labels, 2) == pytest.approx({"accuracy": 3 / 4, "iou": (2 / 3 + 1 / 2) / 2})


def test_classes_that_do_not_occur_are_not_counted():
    labels = torch.tensor([[[0, 0], [0, 1]]])
    predicted = torch.tensor([[[0, 0], [7, 1]]])
    scores = [label_scores(predicted, labels, classes) for classes in (8, 12, 30)]
    assert scores[0] == pytest.approx({"accuracy": 3 / 4, "iou": (2 / 3 + 1) / 2})
    assert scores[0] == scores[1] == scores[2]


def test_a_class_that_is_never_found_counts_as_nothing_found():
    labels = torch.tensor([[[0, 0], [3, 3]]])
    assert label_scores(torch.zeros_like(labels), labels, 12) == pytest.approx({"accuracy": 1 / 2, "iou": 1 / 4})


# --- sliced_wasserstein


def test_the_same_pictures_are_at_no_distance(real):
    assert sliced_wasserstein(real, real) == 0


@pytest.mark.parametrize("spoil", [(blurred, (0.7, 2, 6)), (grainy, (4, 15, 50))], ids=["blur", "noise"])
def test_the_distance_grows_with_blur_and_with_noise(real, spoil):
    change, amounts = spoil
    distances = [sliced_wasserstein(change(real, amount), real) for amount in amounts]
    assert 0 < 1.5 * distances[0] < distances[1] and 1.2 * distances[1] < distances[2]


def test_the_order_of_the_pictures_does_not_matter(real):
    spoilt = blurred(real, 1)
    expected = sliced_wasserstein(spoilt, real)
    assert sliced_wasserstein(spoilt[::-1], real) == pytest.approx(expected, rel=1e-3)
    assert sliced_wasserstein(spoilt, real[2:] + real[:2]) == pytest.approx(expected, rel=1e-3)
    assert sliced_wasserstein(real[::-1], real) == pytest.approx(0, abs=1e-3)


def test_a_pixel_by_pixel_copy_is_not_asked_for(real, building):
    """Other buildings of the same street are closer than the same buildings in a fog."""
    others = [building(seed)[1] for seed in range(6, 12)]
    assert sliced_wasserstein(others, real) < sliced_wasserstein(blurred(real, 3), real)


def test_the_distance_is_the_same_each_time_and_mutual(real):
    spoilt = blurred(real, 1)
    first = sliced_wasserstein(spoilt, real)
    torch.rand(1)
    assert sliced_wasserstein(spoilt, real) == first
    assert sliced_wasserstein(real, spoilt) == pytest.approx(first)


def test_as_many_pictures_are_not_needed_on_both_sides(real):
    assert np.isfinite(sliced_wasserstein(real[:2], real))
    assert sliced_wasserstein(real[:3] * 2, real[:3]) < 0.05 * sliced_wasserstein(blurred(real[:3], 2), real[:3])


def test_the_pyramid_adds_up_to_the_picture(real):
    levels = laplacian_pyramid(as_batch(real[:1]))
    assert [level.shape[-1] for level in levels] == [256 // 2**i for i in range(LEVELS)]
    x = levels[-1]
    for level in reversed(levels[:-1]):
        x = level + torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    assert torch.allclose(x, as_batch(real[:1]), atol=1e-5)
