import io

import cv2
import numpy as np
import pytest
from PIL import Image

from gan_core.facades import random_facade
from gan_core.image import PictureError
from gan_core.palette import FACADES, LABEL_SIDE, VOC, Palette

PALETTES = pytest.mark.parametrize("palette", [FACADES, VOC], ids=["facades", "voc"])


def all_classes(palette: Palette) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(600) % len(palette)).astype(np.uint8).reshape(20, 30)


def jpeg(picture: Image.Image, quality: int = 40) -> Image.Image:
    """As people keep their maps: smeared, with half the resolution of colour."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return Image.open(buffer)


# --- colours


def test_voc_has_the_colours_of_its_devkit():
    colors = dict(zip(VOC.names, VOC.colors))
    assert colors["background"] == (0, 0, 0)
    assert colors["aeroplane"] == (128, 0, 0)
    assert colors["bottle"] == (128, 0, 128)
    assert colors["cat"] == (64, 0, 0)
    assert colors["person"] == (192, 128, 128)
    assert colors["potted plant"] == (0, 64, 0)
    assert colors["tv monitor"] == (0, 64, 128)
    assert (VOC.names.index("person"), VOC.void) == (15, (224, 224, 192))


def test_facades_has_the_colours_of_the_authors_of_pix2pix():
    colors = dict(zip(FACADES.names, FACADES.colors))
    assert colors["background"] == (0, 0, 222)
    assert colors["window"] == (0, 128, 255)
    assert colors["shutter"] == (255, 240, 0)
    assert colors["shop"] == (176, 0, 0)


@PALETTES
def test_each_class_has_one_name_and_one_colour(palette):
    assert len(palette) == len(palette.names) == len(palette.colors)
    assert len(set(palette.names)) == len(set(palette.colors)) == len(palette)
    assert palette.void not in palette.colors


# --- labels <-> picture


@PALETTES
def test_labels_come_back_from_their_picture(palette):
    labels = all_classes(palette)
    picture = palette.to_picture(labels)
    assert (picture.mode, picture.size) == ("RGB", (30, 20))
    back = palette.to_labels(picture)
    assert back.dtype == np.uint8
    assert np.array_equal(back, labels)
    assert {color for _, color in picture.getcolors()} == set(palette.colors)


@PALETTES
def test_a_class_is_painted_in_its_colour(palette):
    for number, color in enumerate(palette.colors):
        assert palette.to_picture(np.array([[number]])).getpixel((0, 0)) == color


@PALETTES
def test_a_colour_belongs_to_the_nearest_class(palette):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    expected = ((pixels[:, :, None] - np.array(palette.colors, dtype=float)) ** 2).sum(-1)
    chosen = palette.to_labels(Image.fromarray(pixels))
    reached = np.take_along_axis(expected, chosen[..., None].astype(int), axis=-1)[..., 0]
    assert np.array_equal(reached, expected.min(-1))


def test_maps_in_other_modes_are_read_alike():
    picture = FACADES.to_picture(all_classes(FACADES))
    for other in (picture.convert("RGBA"), picture.quantize(16)):
        assert other.mode in ("RGBA", "P")
        assert np.array_equal(FACADES.to_labels(other), all_classes(FACADES))


def test_void_has_a_colour_where_the_palette_knows_it():
    assert VOC.to_picture(np.array([[255]])).getpixel((0, 0)) == (224, 224, 192)
    with pytest.raises(ValueError, match="class 255 is not one of the 12"):
        FACADES.to_picture(np.array([[255]]))


@PALETTES
@pytest.mark.parametrize("beyond", [0, 1, -256])
def test_a_number_that_is_no_class_is_named(palette, beyond):
    number = len(palette) + beyond
    with pytest.raises(ValueError, match=f"class {number} is not one of the {len(palette)} classes"):
        palette.to_picture(np.array([[0, number]]))


# --- read_map


def test_a_clean_map_is_read_to_the_pixel():
    labels = all_classes(FACADES)  # every class in single pixels
    assert np.array_equal(FACADES.read_map(FACADES.to_picture(labels)), labels)


@pytest.fixture(scope="module")
def smeared() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Labels of some maps, what is read from their JPEGs, and what the nearest colours alone would say."""
    results = []
    for seed in range(30):
        clean = random_facade(seed)
        picture = jpeg(clean)
        results.append((FACADES.to_labels(clean), FACADES.read_map(picture), FACADES.to_labels(picture)))
    return results


def test_a_map_in_the_very_colours_is_read_without_distances(monkeypatch):
    label_map = random_facade(1)
    expected = FACADES.to_labels(label_map)
    monkeypatch.setattr(Palette, "_distances", lambda *_: pytest.fail("distances were measured"))
    assert np.array_equal(FACADES.read_map(label_map), expected)


def test_away_from_edges_a_smeared_map_is_read_without_a_mistake(smeared):
    for seed, (labels, read, _) in enumerate(smeared):
        flat = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((7, 7))) == 0
        assert 0.2 < flat.mean() < 0.8, seed
        assert np.array_equal(read[flat], labels[flat]), seed


def test_at_edges_a_smeared_map_is_read_better_than_by_the_nearest_colour(smeared):
    right = np.array([[(x == labels).mean() for x in (read, nearest)] for labels, read, nearest in smeared])
    assert (right[:, 0] > right[:, 1]).all()
    assert right[:, 0].min() > 0.9
    assert 1 - right[:, 0].mean() < 0.4 * (1 - right[:, 1].mean())


def test_a_smear_brings_no_classes_that_the_map_does_not_have(smeared):
    """Thin shutters may look like balconies for good; all but a few pixels of the others are found out."""
    shares = [[(~np.isin(x, labels)).mean() for x in (read, nearest)] for labels, read, nearest in smeared]
    read, nearest = np.array(shares).T
    assert read.max() < 0.005
    assert read.mean() < 0.02 * nearest.mean()
    assert (read == 0).mean() > 0.8 and (nearest == 0).mean() < 0.2


def test_a_map_that_was_scaled_with_soft_edges_keeps_its_classes():
    for seed in range(10):
        clean = random_facade(seed)
        labels = FACADES.to_labels(clean.resize((180, 180), Image.Resampling.NEAREST))
        read = FACADES.read_map(clean.resize((180, 180), Image.Resampling.BILINEAR))
        assert set(np.unique(read)) == set(np.unique(labels)), seed
        assert (read == labels).mean() > 0.9, seed


def test_thin_lines_in_exact_colours_survive_a_smear_elsewhere():
    labels = np.ones((64, 64), dtype=np.uint8)
    labels[:, 20], labels[40] = 8, 10
    picture = FACADES.to_picture(labels)
    picture.putpixel((5, 5), (120, 120, 120))
    read = FACADES.read_map(picture)
    labels[5, 5] = read[5, 5]
    assert np.array_equal(read, labels)
    assert read[5, 5] == 1, "what is unlike any class belongs to what is around it"


def test_a_photo_is_refused_with_a_colour_and_a_remedy(portrait, building):
    for photo in (portrait(0), portrait(1), building(0)[1]):
        with pytest.raises(PictureError, match=r"such as #[0-9a-f]{6}, so it is no label map. Paint it.*a photo"):
            FACADES.read_map(photo)


@pytest.mark.parametrize(
    "color, name", [((255, 0, 255), "#ff00ff"), ((8, 120, 10), "#08780a"), ((255,) * 3, "#ffffff")]
)
def test_the_commonest_foreign_colour_is_named(color, name):
    picture = Image.new("RGB", (60, 60), color)
    picture.paste((90, 90, 90), (0, 0, 60, 12))
    picture.paste(FACADES.colors[1], (0, 50, 60, 60))
    with pytest.raises(PictureError, match=f"83% of this picture.*such as {name},"):
        FACADES.read_map(picture)


def test_a_map_with_some_foreign_colour_is_read(building):
    picture = building(0)[0].copy()
    labels = FACADES.to_labels(picture)
    picture.paste((128, 128, 128), (100, 100, 140, 140))
    read = FACADES.read_map(picture)
    outside = np.ones(labels.shape, dtype=bool)
    outside[100:140, 100:140] = False
    assert np.array_equal(read[outside], labels[outside])


@pytest.mark.parametrize(
    "size, read_size", [((3000, 1500), (1024, 512)), ((1, 3000), (1, 1024)), ((1024, 7), (1024, 7))]
)
def test_large_maps_are_looked_at_in_a_smaller_size(size, read_size):
    picture = FACADES.to_picture(np.array([[0, 1], [2, 11]])).resize(size, Image.Resampling.NEAREST)
    read = FACADES.read_map(picture)
    assert max(read.shape) <= LABEL_SIDE
    assert read.shape == read_size[::-1]
    assert np.array_equal(read, FACADES.to_labels(picture.resize(read_size, Image.Resampling.NEAREST)))


def test_near_share_tells_maps_from_photos(building):
    for seed in range(5):
        label_map, photo = building(seed)
        assert FACADES.near_share(label_map) == 1
        assert FACADES.near_share(jpeg(label_map)) > 0.6
        assert FACADES.near_share(photo) < 0.05
