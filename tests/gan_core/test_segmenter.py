from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import Pix2PixPredictor, Segmenter, checkpoint
from gan_core.checkpoint import CheckpointError
from gan_core.image import PictureError
from gan_core.maxpool_unet import MaxPoolUNetConfig
from gan_core.palette import VOC
from gan_core.segmentation import SegmentationConfig, SegmentationGenerator
from gan_core.segmenter import class_shares, classes_in, follow_edges, lay_over, weight_of, winners

PICTURE = SegmentationConfig(MaxPoolUNetConfig(widths=(8, 16, 16)), size=32)
CLASSES = SegmentationConfig(
    MaxPoolUNetConfig(12, len(VOC), widths=(8, 16), residual=1, context=True, dropout=0.1),
    paints="classes",
    block=2,
    size=32,
    square=False,
)


@pytest.fixture(params=[PICTURE, CLASSES], ids=["picture", "classes"])
def segmenter(request, lively) -> Segmenter:
    return Segmenter(lively(SegmentationGenerator(request.param)))


@pytest.fixture
def classifier(lively) -> Segmenter:
    return Segmenter(lively(SegmentationGenerator(CLASSES)))


def rotated(photo: Image.Image) -> Image.Image:
    """As phones write them: lying on its side, with a note to turn it."""
    lying = photo.transpose(Image.Transpose.ROTATE_90)
    lying.getexif()[0x0112] = 6
    return lying


@pytest.mark.parametrize("size", [(64, 64), (63, 41), (41, 97), (200, 30), (1, 1), (3, 500), (640, 480)])
def test_the_answer_has_the_size_of_the_photo(segmenter, portrait, size):
    labels = segmenter.segment(portrait(0).resize(size))
    assert labels.shape == (size[1], size[0])
    assert labels.dtype == np.uint8 and labels.max() < len(VOC)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_photos_of_any_mode_are_taken(segmenter, portrait, mode):
    gray = np.asarray(portrait(0, 50).convert("L")).astype(np.uint16) * 257
    photo = Image.fromarray(gray) if mode == "I;16" else portrait(0, 50).convert(mode)
    assert segmenter.segment(photo).shape == (50, 50)


def test_a_photo_that_must_be_turned_is_turned(classifier, portrait):
    photo = portrait(0).resize((90, 60))
    turned = rotated(photo)
    assert turned.size == (60, 90)
    assert np.array_equal(classifier.segment(turned), classifier.segment(photo))
    assert classifier.palette_picture(turned).size == classifier.palette_picture(photo).size


def test_what_is_transparent_is_white(classifier, portrait):
    photo = portrait(0, 64)
    glass, paper = photo.convert("RGBA"), photo.copy()
    glass.paste((255, 0, 0, 0), (0, 0, 64, 30))
    paper.paste("white", (0, 0, 64, 30))
    assert np.array_equal(classifier.segment(glass), classifier.segment(paper))


def test_too_many_pixels_are_refused(classifier, monkeypatch):
    with pytest.raises(PictureError, match="at most 50 megapixels"):
        classifier.segment(Image.new("1", (9000, 6000)))


@pytest.mark.parametrize("thorough", [False, True])
def test_answers_are_the_same_every_time_and_from_every_thread(segmenter, portrait, thorough):
    photos = [portrait(seed).resize((70, 50)) for seed in range(3)] * 3
    expected = [segmenter.segment(photo, thorough) for photo in photos]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda photo: segmenter.segment(photo, thorough), photos))
    assert all(map(np.array_equal, expected, found))


def test_a_mirrored_photo_has_a_mirrored_answer(classifier, portrait):
    photo = portrait(0).resize((96, 64))
    labels = classifier.segment(photo)
    mirrored = classifier.segment(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert (mirrored[:, ::-1] == labels).mean() > 0.97


def test_the_shape_of_a_photo_is_kept_unless_the_net_was_trained_on_squares(lively):
    wide, square = (Segmenter(lively(SegmentationGenerator(config))) for config in (CLASSES, PICTURE))
    assert wide.working_size((400, 200)) == (64, 32)
    assert wide.working_size((200, 300), 1.25) == (40, 60)
    assert wide.working_size((6000, 100)) == (96, 2)
    assert square.working_size((400, 200)) == (32, 32)


def test_a_thorough_look_is_another_look(classifier, portrait):
    shares = [classifier.shares(portrait(0, 64), scales) for scales in ((1.0,), (0.75, 1.0, 1.25))]
    assert shares[0].shape == shares[1].shape == (32, 32, 21)
    assert all(np.allclose(share.sum(axis=-1), 1, atol=1e-4) for share in shares)
    assert np.abs(shares[0] - shares[1]).max() > 1e-3


def test_the_palette_picture_is_what_the_generator_paints(segmenter, portrait):
    picture = segmenter.palette_picture(portrait(0).resize((96, 64)))
    assert picture.mode == "RGB"
    assert picture.size == segmenter.working_size((96, 64))
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50, "not decoded"


def test_the_published_generator_is_taken_at_its_word(lively, portrait):
    segmenter = Segmenter(lively(SegmentationGenerator(PICTURE)))
    labels = segmenter.segment(portrait(0, 32))
    painted = VOC.to_labels(segmenter.palette_picture(portrait(0, 32)))
    assert (labels == painted).mean() > 0.98  # the picture is rounded to 8 bits


# --- clean edges


def disc(size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size - 0.5
    return (x**2 + y**2 < 0.09).astype(np.float32)


def test_a_class_that_the_picture_as_a_whole_does_not_show_wins_nowhere(lively, portrait):
    generator = lively(SegmentationGenerator(CLASSES))
    with torch.no_grad():
        generator.unet.context.presence.bias.fill_(8.0)  # everything is there
        everything = Segmenter(generator).shares(portrait(0))
        winner = int(np.bincount(everything.argmax(axis=-1).ravel()).argmax())
        generator.unet.context.presence.bias[winner] = -60.0  # but this one
        without = Segmenter(generator).shares(portrait(0))
    assert not (without.argmax(axis=-1) == winner).any()
    assert np.allclose(without.sum(axis=-1), 1, atol=1e-3)


def test_a_class_that_is_hardly_there_counts_for_nothing_beside_one_that_may_be():
    absent, hardly, perhaps, surely = weight_of(torch.tensor([0.0, 0.19, 0.21, 1.0]))
    assert absent == hardly > 0  # so that shares can still be divided by their sum
    assert hardly < perhaps / 1000 and perhaps < surely == 1


def test_borders_move_to_the_edges_of_the_photo():
    """Shares at a coarse size, a little too large; the photo says where the disc ends."""
    sharp = disc(256)
    photo = np.where(sharp[..., None] > 0, (200, 80, 40), (90, 120, 200)).astype(np.uint8)
    coarse = cv2.resize(cv2.GaussianBlur(disc(32), (0, 0), 2.5), (64, 64))
    shares = np.stack([1 - coarse, coarse], axis=-1)
    plain, refined = (winners(x, (256, 256)) for x in (shares, follow_edges(shares, photo)))
    assert (refined == sharp).mean() > 0.995 > (plain == sharp).mean()


def test_without_edges_the_shares_stay():
    coarse = cv2.GaussianBlur(disc(64), (0, 0), 6)
    refined = follow_edges(np.stack([1 - coarse, coarse], axis=-1), np.full((128, 128, 3), 90, np.uint8))
    assert refined.shape == (128, 128, 2)
    assert np.abs(cv2.resize(refined[..., 1], (64, 64), interpolation=cv2.INTER_AREA) - coarse).max() < 0.2


def test_stray_pixels_are_no_class():
    shares = np.zeros((100, 100, 21), np.float32)
    shares[..., 0] = 0.5
    shares[:5, :5, 7] = 0.9  # 0.25 %
    shares[50:, :50, 12] = 0.9
    assert classes_in(shares) == [0, 12]


def test_shares_of_classes_begin_with_the_largest():
    labels = np.array([[0, 0, 15, 15], [0, 0, 15, 8]], dtype=np.uint8)
    assert list(class_shares(labels).items()) == [(0, 0.5), (15, 0.375), (8, 0.125)]


def test_an_overlay_colours_all_but_the_background(photo):
    photo = photo.resize((4, 2))
    labels = np.array([[0, 0, 8, 8], [15, 0, 8, 0]], dtype=np.uint8)
    overlay = np.asarray(lay_over(photo, labels)).astype(int)
    before, colors = np.asarray(photo).astype(int), np.array(VOC.colors)[labels]
    assert (overlay[labels == 0] == before[labels == 0]).all()
    assert np.abs(overlay - (0.45 * before + 0.55 * colors))[labels > 0].max() < 2


def test_the_winner_is_the_largest_share():
    shares = np.random.default_rng(0).dirichlet((1, 1, 1), (20, 30)).astype(np.float32)
    assert (winners(shares, (30, 20)) == shares.argmax(axis=-1)).mean() > 0.97
    assert winners(shares, (90, 60)).shape == (60, 90)


# --- checkpoints


def test_from_a_checkpoint(tmp_path, lively, portrait):
    generator = lively(SegmentationGenerator(CLASSES))
    checkpoint.save(tmp_path / "segmentation.safetensors", "segmentation", {"generator": generator})
    segmenter = Segmenter.from_checkpoint(tmp_path / "segmentation.safetensors")
    photo = portrait(0).resize((80, 60))
    assert (segmenter.segment(photo) == Segmenter(generator).segment(photo)).mean() > 0.95
    with pytest.raises(CheckpointError, match=r"for segmentation\. Open it by gan_core\.Segmenter"):
        Pix2PixPredictor.from_checkpoint(tmp_path / "segmentation.safetensors")


def test_checkpoints_of_other_tasks_are_refused(tmp_path, generator):
    checkpoint.save(tmp_path / "x.safetensors", "facades", {"generator": generator})
    with pytest.raises(CheckpointError, match="for facades, not for segmentation"):
        Segmenter.from_checkpoint(tmp_path / "x.safetensors")


def test_the_generator_given_is_left_as_it_is(lively):
    generator = lively(SegmentationGenerator(replace(CLASSES))).train()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    Segmenter(generator)
    assert generator.training and all(p.requires_grad for p in generator.parameters())
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
