import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core.faces import FaceLayout
from gan_core.lineart import SIZE
from train.data import (
    LAYOUTS,
    MOST_IN_A_ROW,
    OUTLINES,
    DataError,
    EpochBatches,
    FacePhotos,
    PairFolder,
    StandIns,
    augment,
    augment_pair,
    collate,
    evenly,
    list_pictures,
)

LAYOUT = FaceLayout((105.0, 115.0), (151.0, 115.0), (128.0, 176.0))


def take(sampler: EpochBatches, count: int) -> list:
    return list(itertools.islice(sampler, count))


@pytest.mark.parametrize(
    "count, most, expected",
    [(5, 3, [0, 2, 4]), (10, 4, [0, 3, 6, 9]), (8, 3, [0, 3, 7]), (3, 3, [0, 1, 2]), (2, 9, [0, 1]), (7, 1, [0])],
)
def test_some_of_many_things_are_chosen_evenly_from_the_first_to_the_last(count, most, expected):
    assert evenly(count, most) == expected


def test_nothing_can_be_chosen_from_nothing():
    assert evenly(0, 5) == evenly(5, 0) == []


# --- EpochBatches


@pytest.mark.parametrize("step", [0, 1, 3, 4, 9, 25])
def test_a_resumed_run_sees_exactly_the_rest(step):
    assert take(EpochBatches(13, 4, seed=7, step=step), 20) == take(EpochBatches(13, 4, seed=7), 45)[step : step + 20]


@pytest.mark.parametrize("length, size", [(12, 4), (13, 4), (5, 5), (3, 1)])
def test_each_epoch_shows_every_picture_at_most_once(length, size):
    per_epoch = length // size
    for epoch in range(3):
        batches = take(EpochBatches(length, size), 3 * per_epoch)[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert {e for batch in batches for e, _ in batch} == {epoch}
        indices = [index for batch in batches for _, index in batch]
        assert len(set(indices)) == len(indices) == per_epoch * size
        assert set(indices) <= set(range(length))


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed: int, epoch: int) -> tuple:
        return tuple(index for ((_, index),) in take(EpochBatches(30, 1, seed, step=30 * epoch), 30))

    orders = [order(seed, epoch) for seed in range(2) for epoch in range(3)]
    assert len(set(orders)) == 6
    assert all(sorted(o) == list(range(30)) for o in orders)


def test_what_is_left_over_gets_its_turn_in_another_epoch():
    assert {index for batch in take(EpochBatches(13, 4), 60) for _, index in batch} == set(range(13))


def test_fewer_pictures_than_a_batch_name_the_option():
    with pytest.raises(DataError, match=r"3 pictures.*batch of 4.*--batch-size"):
        EpochBatches(3, 4)


# --- list_pictures


def test_pictures_are_found_in_all_folders_and_sorted(tmp_path, photo):
    (tmp_path / "b").mkdir()
    for name in ("b/2.PNG", "a.jpg", "b/1.webp"):
        photo.resize((8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    assert [path.relative_to(tmp_path).as_posix() for path in list_pictures(tmp_path)] == [
        "a.jpg",
        "b/1.webp",
        "b/2.PNG",
    ]


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(DataError, match="gone is not a folder"):
        list_pictures(tmp_path / "gone")
    with pytest.raises(DataError, match="holds no pictures"):
        list_pictures(tmp_path)


# --- augment


def landmarks() -> np.ndarray:
    """A black photo with a spot of its own colour at each point of the layout."""
    photo = np.zeros((SIZE, SIZE, 3), np.uint8)
    for channel, (x, y) in enumerate(LAYOUT.points):
        photo[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3, channel] = 255
    return photo


def spot(channel: np.ndarray) -> np.ndarray:
    """Centre of brightness, x and y."""
    y, x = np.nonzero(channel > 100)
    return np.array([x.mean(), y.mean()])


def test_the_layout_moves_with_the_photo():
    outlined = replace(LAYOUT, outlines={"pupils": np.array(LAYOUT.points[:2], np.float32)})
    moved = set()
    for seed in range(200):
        photo, layout = augment(landmarks(), outlined, np.random.default_rng(seed), zoom=0.6)
        assert photo.shape == (SIZE, SIZE, 3)
        assert np.allclose(layout.outlines["pupils"], layout.points[:2], atol=1e-3)
        # A mirrored face has its left eye where the right one was: the colours of the eyes change places.
        eyes = (0, 1) if spot(photo[..., 0])[0] < spot(photo[..., 1])[0] else (1, 0)
        for point, channel in zip(layout.points, (*eyes, 2)):
            assert np.abs(spot(photo[..., channel]) - point).max() < 1.5, seed
        assert layout.left_eye[0] < layout.right_eye[0]
        moved.add((eyes, layout.left_eye == LAYOUT.left_eye))
    assert {eyes for eyes, _ in moved} == {(0, 1), (1, 0)}
    assert {still for _, still in moved} == {True, False}


def test_half_of_the_photos_are_mirrored_and_half_zoomed():
    results = [augment(landmarks(), LAYOUT, np.random.default_rng(seed), zoom=0.7) for seed in range(400)]
    mirrored = np.mean([spot(photo[..., 0])[0] > spot(photo[..., 1])[0] for photo, _ in results])
    zoomed = np.mean([abs(layout.right_eye[0] - layout.left_eye[0] - 46) > 0.01 for _, layout in results])
    assert 0.4 < mirrored < 0.6
    assert 0.4 < zoomed < 0.6


def test_zoom_keeps_at_least_its_share_but_for_a_small_stretch():
    across, down = [], []
    for seed in range(300):
        _, layout = augment(landmarks(), LAYOUT, np.random.default_rng(seed), zoom=0.8)
        left, right, mouth = np.array(layout.points)
        across.append(np.hypot(*(right - left)) / 46)
        down.append(np.hypot(*(mouth - (left + right) / 2)) / 61)
    assert min(across) > 0.99 and 1.2 < max(across) < 1.25 * 1.09  # at no stretch the picture ends
    assert min(down) > 0.99 and 1.2 < max(down) < 1.25 * 1.03  # stretched across only; a turn mixes a little in


def test_turns_are_small_and_go_both_ways():
    turns = []
    for seed in range(300):
        left, right, _ = np.array(augment(landmarks(), LAYOUT, np.random.default_rng(seed), zoom=0.8)[1].points)
        turns.append(np.degrees(np.arctan2(*(right - left)[::-1])))
    assert -20 < min(turns) < -5 and 5 < max(turns) < 20


def test_without_zoom_a_photo_is_itself_or_its_mirror_image():
    seen = {augment(landmarks(), None, np.random.default_rng(seed), zoom=1)[0].tobytes() for seed in range(20)}
    assert seen == {landmarks().tobytes(), landmarks()[:, ::-1].tobytes()}


def test_a_photo_without_layout_is_augmented_alike():
    for seed in range(10):
        photo, layout = augment(landmarks(), None, np.random.default_rng(seed), zoom=0.7)
        assert layout is None
        assert np.array_equal(photo, augment(landmarks(), LAYOUT, np.random.default_rng(seed), zoom=0.7)[0])


# --- FacePhotos


@pytest.fixture
def faces(tmp_path, portrait):
    for i in range(3):
        portrait(i).save(tmp_path / f"{i}.png")
    (tmp_path / LAYOUTS).write_text(json.dumps({"1.png": LAYOUT.points}))
    return tmp_path


def test_outlines_beside_the_photos_are_read_and_say_where_the_eyes_are(faces, face_outlines):
    (faces / OUTLINES).write_text(json.dumps({"1.png": {name: line.tolist() for name, line in face_outlines.items()}}))
    photos = FacePhotos(faces)
    assert photos.layout(0) is None
    layout = photos.layout(1)
    assert layout.outlines.keys() == face_outlines.keys()
    assert np.allclose(layout.points[:2], face_outlines["pupils"])
    assert photos[0, 1][0].shape == (1, SIZE, SIZE)


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_item_depends_on_seed_epoch_and_index_only(faces):
    first, second = FacePhotos(faces, seed=3), FacePhotos(faces, seed=3)
    np.random.seed(0)
    expected = first[4, 1]
    _ = second[0, 0], second[4, 2], np.random.rand()
    assert equal(second[4, 1], expected)
    for other in (first[5, 1], first[4, 2], FacePhotos(faces, seed=4)[4, 1]):
        assert not equal(other, expected)


def test_an_item_is_a_drawing_and_its_photo(faces):
    source, target = FacePhotos(faces)[0, 0]
    assert (source.shape, target.shape) == ((1, SIZE, SIZE), (3, SIZE, SIZE))
    for tensor in (source, target):
        assert tensor.dtype == torch.float32
        assert -1 <= tensor.min() < tensor.max() <= 1
    assert source.median() == 1, "paper is white"


def test_without_zoom_the_target_is_the_photo(faces, portrait):
    expected = np.asarray(portrait(2)).astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    targets = [FacePhotos(faces, zoom=1)[epoch, 2][1].numpy() for epoch in range(8)]
    assert all(np.allclose(t, expected) or np.allclose(t, expected[..., ::-1]) for t in targets)


def test_layouts_are_optional_and_belong_to_their_photos(faces):
    photos = FacePhotos(faces)
    assert len(photos) == 3
    assert [photos.layout(i) for i in range(3)] == [None, LAYOUT, None]
    (faces / LAYOUTS).unlink()
    assert FacePhotos(faces).layout(1) is None


def test_a_photo_that_was_not_prepared_names_the_command(faces, photo):
    photo.resize((300, 200)).save(faces / "0.png")
    with pytest.raises(DataError, match=r"0\.png is 300x200, not 256x256.*train\.prepare faces"):
        FacePhotos(faces)[0, 0]


# --- pictures that cannot be read


def test_the_next_picture_stands_in_for_one_that_cannot_be_read_and_it_is_named(faces):
    (faces / "1.png").write_bytes((faces / "1.png").read_bytes()[:2000])
    photos, stand_ins = FacePhotos(faces), StandIns(FacePhotos(faces))
    assert len(stand_ins) == 3
    for asked, taken in ((0, 0), (1, 2), (2, 2)):
        item, troubles = stand_ins[5, asked]
        assert equal(item, photos[5, taken])
        assert troubles == (
            [] if asked == taken else [f"{faces}: '1.png' is damaged or cut short. Save it once more and try again."]
        )
    (faces / "2.png").unlink()
    item, troubles = stand_ins[5, 1]
    assert equal(item, photos[5, 0]) and len(troubles) == 2


def test_if_too_many_in_a_row_cannot_be_read_it_is_the_folder(faces):
    photos = StandIns(FacePhotos(faces))
    for file in faces.glob("*.png"):
        file.unlink()
    item, (error,) = photos[0, 0]
    assert item is None and isinstance(error, DataError)
    assert str(error).startswith(f"{MOST_IN_A_ROW} pictures in a row cannot be read. The last: {faces}: ")


def test_an_error_that_is_no_damage_is_handed_on(faces, photo):
    photo.resize((300, 200)).save(faces / "0.png")
    item, (error,) = StandIns(FacePhotos(faces))[0, 0]
    assert item is None and "train.prepare faces" in str(error)
    batch, troubles = collate([StandIns(FacePhotos(faces))[0, i] for i in range(3)])
    assert (len(batch), len(troubles)) == (0, 1)


# --- PairFolder


@pytest.fixture
def pairs(tmp_path, portrait):
    """Sources are the targets in gray, so that one can see whether they stay together."""
    for folder in ("source", "target"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        portrait(i, 64).save(tmp_path / "target" / f"{i}.png")
        portrait(i, 64).convert("L").save(tmp_path / "source" / f"{i}.png")
    return tmp_path


def test_pairs_stay_together_when_they_are_mirrored(pairs):
    folder = PairFolder(pairs, gray_source=True)
    assert len(folder) == 3
    seen = set()
    for epoch in range(10):
        source, target = folder[epoch, 1]
        assert (source.shape, target.shape) == ((1, 64, 64), (3, 64, 64))
        luma = (target * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
        assert torch.allclose(source[0], luma, atol=0.02)
        seen.add(source.numpy().tobytes())
        assert equal(folder[epoch, 1], (source, target))
    assert len(seen) == 2


def test_sources_in_colour_have_three_channels(pairs):
    assert PairFolder(pairs)[0, 0][0].shape == (3, 64, 64)


def test_partners_may_have_different_formats(pairs, portrait):
    (pairs / "target" / "0.png").unlink()
    portrait(0, 64).save(pairs / "target" / "0.jpg")
    assert len(PairFolder(pairs)) == 3


@pytest.mark.parametrize("half", ["source", "target"])
def test_the_next_pair_stands_in_for_one_of_which_a_half_cannot_be_read(pairs, half):
    (pairs / half / "1.png").write_bytes(b"no picture")
    folder = PairFolder(pairs, gray_source=True)
    item, (trouble,) = StandIns(folder)[4, 1]
    assert equal(item, folder[4, 2])
    assert trouble.startswith(f"{pairs / half}: '1.png' is not a picture")


@pytest.mark.parametrize("lonely", ["source/1.png", "target/1.png"])
def test_a_picture_without_partner_is_named(pairs, lonely):
    (pairs / lonely).unlink()
    with pytest.raises(DataError, match=r"1 picture.*without a partner.*such as 1"):
        PairFolder(pairs)


def test_partners_of_different_sizes_name_both(pairs):
    Image.new("RGB", (32, 64)).save(pairs / "source" / "0.png")
    with pytest.raises(DataError, match=r"32x64, its target 64x64. Scale both"):
        PairFolder(pairs)[0, 0]


@pytest.mark.parametrize("missing", ["source", "target"])
def test_a_missing_half_is_named(pairs, missing):
    (pairs / missing).rename(pairs / "elsewhere")
    with pytest.raises(DataError, match=f"{missing} is not a folder"):
        PairFolder(pairs)


# --- augment_pair


def dots(x: int = 90, y: int = 140, width: int = 256, height: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Source and target with one dot, red in a field of blue and white on black."""
    source = np.zeros((height, width, 3), np.uint8)
    source[..., 2] = 222
    target = np.zeros_like(source)
    area = slice(y - 3, y + 4), slice(x - 3, x + 4)
    source[area], target[area] = (255, 0, 0), 255
    return source, target


def moved(seed: int, zoom: float, **place) -> tuple[np.ndarray, np.ndarray]:
    return augment_pair(*dots(**place), np.random.default_rng(seed), zoom)


@pytest.mark.parametrize("size", [(256, 256), (192, 128)])
@pytest.mark.parametrize("zoom", [1.0, 0.7, 0.4])
def test_a_dot_stays_at_one_place_in_both_pictures(zoom, size):
    width, height = size
    inside = 0
    for seed in range(200):
        source, target = moved(seed, zoom, x=90, y=60, width=width, height=height)
        assert source.shape == target.shape == (height, width, 3)
        shown = target[..., 1] > 100
        assert (source[..., 0] == 255).any() == shown.any() or shown.sum() < 60, seed
        if shown[3:-3, 3:-3].sum() == shown.sum() > 40:  # not cut by an edge
            assert np.abs(spot(source[..., 0]) - spot(target[..., 1])).max() < 1.5, seed
            inside += 1
    assert inside > 100


@pytest.mark.parametrize("zoom", [1.0, 0.7])
def test_the_source_gets_no_new_colours(building, zoom):
    label_map, photo = map(np.asarray, building(0))
    before = {tuple(color) for color in label_map.reshape(-1, 3)}
    for seed in range(20):
        source, _ = augment_pair(label_map, photo, np.random.default_rng(seed), zoom)
        assert {tuple(color) for color in source.reshape(-1, 3)} <= before


def test_without_zoom_a_pair_is_itself_or_its_mirror_image():
    plain, mirrored = dots(), tuple(picture[:, ::-1] for picture in dots())
    seen = [moved(seed, 1.0) for seed in range(200)]
    kinds = [[all(map(np.array_equal, pair, kind)) for kind in (plain, mirrored)] for pair in seen]
    assert all(sum(kind) == 1 for kind in kinds)
    assert 70 < sum(kind[1] for kind in kinds) < 130


def test_a_zoomed_pair_is_mirrored_as_often_as_not_and_both_of_it_alike():
    left = 0
    for seed in range(200):
        source, target = moved(seed, 0.9, x=60)
        sides = spot(source[..., 0])[0] < 128, spot(target[..., 1])[0] < 128
        assert sides[0] == sides[1], seed
        left += sides[0]
    assert 70 < left < 130


def test_a_crop_keeps_at_least_its_share_of_each_side_and_may_lie_anywhere():
    """The colours of the corners are their places in the whole picture."""
    ramp = np.zeros((256, 256, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(256), np.arange(256)[:, None]
    shares, starts = [], []
    for seed in range(300):
        source, _ = augment_pair(ramp, ramp, np.random.default_rng(seed), 0.7)
        low, high = source[..., :2].reshape(-1, 2).min(0).astype(int), source[..., :2].reshape(-1, 2).max(0).astype(int)
        shares.append((high - low + 1) / 256)
        starts.append(low)
    shares = np.array(shares)
    assert 0.7 - 0.01 <= shares.min() < 0.75 and 0.95 < shares.max() <= 1
    assert 0.01 < np.abs(np.diff(shares)).mean() < 0.1, "a crop is not just a square"
    assert (np.max(starts, axis=0) > 40).all() and (np.min(starts, axis=0) == 0).all()


def test_gray_sources_are_cropped_too():
    source, target = dots()
    for seed in range(5):
        gray, same = augment_pair(source[..., 0], target, np.random.default_rng(seed), 0.7)
        assert np.array_equal(gray, augment_pair(source, target, np.random.default_rng(seed), 0.7)[0][..., 0])
        assert same.shape == target.shape


def test_a_pair_folder_zooms_another_way_in_each_epoch(tmp_path, building):
    for seed in range(2):
        for folder, picture in zip(("source", "target"), building(seed, 64)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"{seed}.png")
    folder = PairFolder(tmp_path, seed=3, zoom=0.7)
    items = [folder[epoch, 1] for epoch in range(6)]
    assert [x.shape for x in items[0]] == [(3, 64, 64)] * 2
    assert len({source.numpy().tobytes() for source, _ in items}) == 6
    assert all(equal(PairFolder(tmp_path, seed=3, zoom=0.7)[epoch, 1], item) for epoch, item in enumerate(items))
    assert len({PairFolder(tmp_path)[epoch, 1][0].numpy().tobytes() for epoch in range(20)}) == 2
    assert folder.pair(1) == building(1, 64), "what is on disk stays as it is"
