import io
import json

import numpy as np
import pytest
from PIL import Image

from gan_core.image import PictureError, to_array
from gan_core.palette import VOC
from train import voc
from train.data import DataError
from train.prepare import DONE, choose_split, main
from train.voc import (
    LabelledPhotos,
    Views,
    find_hub,
    find_voc,
    paste,
    prepare_voc,
    random_view,
    read_mask,
    still_view,
    vary_colours,
)

PLAIN = Views(size=32, grown_size=32, colour=0.0, paste=0.0)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def names(out, split: str) -> list[str]:
    stems = [sorted(path.stem for path in (out / split / part).iterdir()) for part in ("photos", "labels")]
    assert stems[0] == stems[1]
    return stems[0]


def prepare(source, out, **options) -> None:
    prepare_voc(str(source), out, workers=1, **options)


# --- finding and preparing


def test_the_longer_list_is_used_and_val_is_never_trained_on(devkit, out):
    prepare(devkit, out)
    assert names(out, "train") == [f"2007_{i}" for i in range(5)]
    assert names(out, "val") == ["2007_5", "2007_6"]


@pytest.mark.parametrize("above", [0, 1, 2])
def test_the_devkit_is_found_in_the_folder_it_was_unpacked_in(devkit, out, above):
    prepare((devkit / "VOC2012", devkit, devkit.parent)[above], out, train_list="train")
    assert names(out, "train") == [f"2007_{i}" for i in range(3)]


def test_lists_of_paths_are_read_too(devkit):
    lists = devkit / "VOC2012" / "ImageSets" / "Segmentation"
    lists.joinpath("trainaug.txt").write_text("/JPEGImages/2007_3.jpg /SegmentationClassAug/2007_3.png\n\n")
    jobs = find_voc(devkit / "VOC2012")
    assert [name for name, job in jobs.items() if job[0] == "train"] == ["2007_3"]


def test_a_devkit_without_a_training_list_says_which_is_missing(devkit):
    lists = devkit / "VOC2012" / "ImageSets" / "Segmentation"
    for name in ("train", "trainaug"):
        (lists / f"{name}.txt").unlink()
    with pytest.raises(DataError, match=r"has no trainaug\.txt or train\.txt"):
        find_voc(devkit / "VOC2012")


def test_labels_are_written_as_they_are_with_their_void_borders(devkit, out, scene):
    prepare(devkit, out)
    with Image.open(out / "train" / "labels" / "2007_4.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), np.asarray(scene(4)[1]))
        assert 255 in np.asarray(picture)
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(VOC.to_picture(np.asarray(picture))))


def test_large_pictures_are_scaled_and_labels_get_no_new_classes(tmp_path, out, scene):
    photo, labels = scene(1, (900, 600))
    for folder, picture, ending in (("images", photo, "jpg"), ("masks", labels, "png")):
        (tmp_path / "train" / folder).mkdir(parents=True)
        picture.save(tmp_path / "train" / folder / f"x.{ending}")
    prepare(tmp_path / "train", out, val_share=0.0)
    with Image.open(out / "train" / "photos" / "x.jpg") as small:
        assert small.size == (384, 256)
    small = read_mask(out / "train" / "labels" / "x.png")
    assert small.shape == (256, 384)
    assert set(np.unique(small)) <= set(np.unique(np.asarray(labels)))


def folder_of_pairs(tmp_path, scene, count: int = 40, rgb: bool = False):
    """Equal stems beside one another, or images/ and masks/ with RGB masks."""
    folder = tmp_path / "pairs"
    photos, masks = (folder / "images", folder / "masks") if rgb else (folder, folder)
    for part in (photos, masks):
        part.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        photo, labels = scene(i)
        photo.save(photos / f"{i}.jpg")
        (labels.convert("RGB") if rgb else labels).save(masks / f"{i}.png")
    return folder


@pytest.mark.parametrize("rgb", [False, True])
def test_a_folder_without_a_split_is_split_by_seed(tmp_path, out, scene, rgb):
    folder = folder_of_pairs(tmp_path, scene, rgb=rgb)
    prepare(folder, out)
    held_out = names(out, "val")
    assert 2 <= len(held_out) <= 16 and len(held_out) + len(names(out, "train")) == 40
    prepare(folder, tmp_path / "again")
    assert names(tmp_path / "again", "val") == held_out
    prepare(folder, tmp_path / "other", seed=1)
    assert names(tmp_path / "other", "val") != held_out
    labels = read_mask(out / "val" / "labels" / f"{held_out[0]}.png")
    assert np.array_equal(labels, np.asarray(scene(int(held_out[0]))[1]))


@pytest.mark.parametrize("name", ["segmentation", "labels"])
def test_a_source_may_be_called_as_folders_of_masks_are(tmp_path, out, scene, name):
    """Its name says nothing of what is in it."""
    folder_of_pairs(tmp_path, scene, count=3, rgb=True).rename(tmp_path / name)
    prepare(tmp_path / name, out, val_share=0.0)
    assert names(out, "train") == ["0", "1", "2"]
    assert np.array_equal(read_mask(out / "train" / "labels" / "1.png"), np.asarray(scene(1)[1]))


def test_a_fifth_is_held_out_and_new_pictures_change_no_choice():
    chosen = [choose_split(f"{i}", 0.2, 0) for i in range(2000)]
    assert 320 < chosen.count("val") < 480
    assert {choose_split(f"{i}", 0.0, 0) for i in range(99)} == {"train"}


def test_folders_called_train_and_val_are_kept(tmp_path, out, scene):
    for split, seed in (("train", 0), ("val", 1)):
        for part, picture in zip(("images", "masks"), scene(seed)):
            (tmp_path / "set" / split / part).mkdir(parents=True)
            picture.save(tmp_path / "set" / split / part / f"{seed}.png")
    prepare(tmp_path / "set", out, val_share=1.0)
    assert (names(out, "train"), names(out, "val")) == (["0"], ["1"])


def test_pairs_that_cannot_be_told_apart_are_an_error(tmp_path, out, scene):
    (tmp_path / "set").mkdir()
    for ending in ("png", "jpg"):
        scene(0)[0].save(tmp_path / "set" / f"x.{ending}")
    with pytest.raises(DataError, match=r"which is the mask.*into masks/"):
        prepare(tmp_path / "set", out)
    (tmp_path / "set" / "x.png").unlink()
    with pytest.raises(DataError, match=r"one of 1 files called x; each photo needs just one mask"):
        prepare(tmp_path / "set", out)


def as_bytes(picture) -> dict:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_a_folder_of_parquet_is_read_as_the_hub_is(tmp_path, out, scene, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    features = datasets.Features({"mask": datasets.Image(), "image": datasets.Image()})  # the mask comes first
    rows = [scene(i) for i in range(6)]
    columns = {"mask": [as_bytes(row[1]) for row in rows], "image": [as_bytes(row[0]) for row in rows]}
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "set" / "train.parquet")
    prepare(tmp_path / "set", out, val_share=0.5)
    train, val = names(out, "train"), names(out, "val")
    assert len(train) + len(val) == 6 and train and val
    number = int(train[0].rpartition("_")[2])
    assert np.array_equal(read_mask(out / "train" / "labels" / f"{train[0]}.png"), np.asarray(rows[number][1]))


@pytest.mark.parametrize("split, expected", [("train", {"train", "val"}), ("test", {"val"}), ("validation", {"val"})])
def test_a_single_split_of_a_data_set_is_divided_unless_it_is_held_out(monkeypatch, split, expected):
    """As a folder called so is."""

    class Table(list):
        column_names = ("image", "mask")

    monkeypatch.setattr(voc, "open_hub", lambda source: {split: Table(range(99))})
    jobs = find_hub("someone/things", val_share=0.2, seed=0)
    assert len(jobs) == 99 and {job[0] for job in jobs.values()} == expected


def test_what_cannot_be_used_is_left_out_with_its_reason(devkit, out, scene):
    root = devkit / "VOC2012"
    (root / "JPEGImages" / "2007_0.jpg").write_text("no photo")
    (root / "SegmentationClass" / "2007_1.png").unlink()
    scene(2, (60, 30))[1].save(root / "SegmentationClass" / "2007_2.png")
    Image.fromarray(np.full((48, 60), 99, np.uint8)).save(root / "SegmentationClass" / "2007_3.png")
    prepare(devkit, out)
    assert names(out, "train") == ["2007_4"]
    said = (out / "skipped.txt").read_text()
    for reason in ("is not a picture", "cannot be read", "60x48 and its mask 60x30", "has class 99; use only 0"):
        assert reason in said


def test_a_photo_in_place_of_a_mask_is_refused(tmp_path, scene):
    noise = np.random.default_rng(0).integers(0, 255, (48, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    with pytest.raises(PictureError, match="in colours of no class"):
        read_mask(tmp_path / "x.png")


def test_a_second_run_does_nothing_again(devkit, out):
    prepare(devkit, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    log = (out / DONE).read_text().splitlines()
    (out / DONE).write_text("\n".join(log[:-1]) + "\n" + log[-1][:-5])  # interrupted
    prepare(devkit, out)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    assert [path.stem for path in before if before[path] != after[path]] == [json.loads(log[-1])["name"]]
    assert (out / DONE).read_text().splitlines() == log


def test_the_command_prepares_and_shows_what_it_made(devkit, out, capsys):
    main(["voc", str(devkit), str(out), "--list", "train", "--workers", "1"])
    assert f"3 photos in {out / 'train'}, 2 in {out / 'val'}" in capsys.readouterr().out
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.height == 2 * 192 + 2
    with pytest.raises(SystemExit, match=r"error: .*none of the 1 pairs"):
        (devkit / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt").write_text("gone\n")
        (devkit / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
        main(["voc", str(devkit), str(out / "new"), "--list", "train", "--workers", "1"])


# --- reading for training


def test_items_are_photos_and_classes(prepared):
    photos = LabelledPhotos(prepared / "train", size=32)
    assert len(photos) == 4
    photo, labels = photos[0, 0]
    assert (photo.shape, labels.shape, str(labels.dtype)) == ((3, 32, 32), (32, 32), "torch.int64")
    assert photo.min() >= -1 and photo.max() <= 1
    assert set(labels.unique().tolist()) <= {0, 8, 12, 15, 255}


def test_views_depend_on_seed_epoch_and_index_alone(prepared):
    views = Views(size=32, grown_size=32)
    a, b = (LabelledPhotos(prepared / "train", views=views) for _ in range(2))
    b[5, 2], b[0, 0]  # what was read before must not matter
    assert all(x.equal(y) for x, y in zip(a[3, 1], b[3, 1]))
    assert not a[3, 1][0].equal(a[4, 1][0])
    assert not a[3, 1][0].equal(LabelledPhotos(prepared / "train", views=views, seed=1)[3, 1][0])


def test_views_grow_with_the_epoch(prepared):
    photos = LabelledPhotos(prepared / "train", views=Views(size=32, grown_size=48, grow_epoch=2))
    assert [photos[epoch, 0][1].shape[0] for epoch in range(4)] == [32, 32, 48, 48]


def test_decoded_pictures_are_kept(prepared):
    photos = LabelledPhotos(prepared / "train", size=32)
    first = photos[0, 0]
    for path in (prepared / "train").rglob("0.*"):
        path.unlink()
    assert all(x.equal(y) for x, y in zip(first, photos[1, 0]))


@pytest.mark.parametrize("shape", [(300, 400), (96, 64), (40, 200)])
def test_photo_and_labels_stay_aligned(shape):
    """A photo that shows its labels as gray: after any view it still does, up to a pixel at the borders."""
    labels = np.zeros(shape, np.uint8)
    labels[shape[0] // 3 :, shape[1] // 4 : shape[1] // 2] = 20
    labels[: shape[0] // 2, shape[1] // 2 :] = 10
    photo = np.repeat((labels * 12)[..., None], 3, axis=-1)
    for seed in range(12):
        seen, truth = random_view(photo, labels, 64, PLAIN, np.random.default_rng(seed))
        known = truth != 255
        assert seen.shape == (64, 64, 3) and known.mean() > 0.05
        wrong = np.abs(seen[..., 0] / 12 - truth)[known] > 5
        assert wrong.mean() < 0.04, seed
        assert set(np.unique(truth)) <= {0, 10, 20, 255}


def test_a_view_is_mirrored_in_half_of_the_cases():
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    photo, labels = np.repeat(ramp[..., None], 3, axis=-1), np.zeros((64, 64), np.uint8)
    calm = Views(size=32, least=1.0, most=1.0, turn=0.0)
    rising = [
        int(view[:, -1, 0].mean()) > int(view[:, 0, 0].mean())
        for view, _ in (random_view(photo, labels, 32, calm, np.random.default_rng(seed)) for seed in range(60))
    ]
    assert 15 < sum(rising) < 45


def test_beyond_the_picture_everything_is_void():
    photo, labels = np.zeros((20, 90, 3), np.uint8), np.full((20, 90), 8, np.uint8)
    small = Views(size=64, least=0.5, most=0.5, turn=0.0)
    _, truth = random_view(photo, labels, 64, small, np.random.default_rng(0))
    assert set(np.unique(truth)) == {8, 255}
    assert 0.3 < (truth == 255).mean() < 0.7


def test_a_small_picture_lies_anywhere_in_its_view():
    photo, labels = np.zeros((40, 40, 3), np.uint8), np.full((40, 40), 8, np.uint8)
    small = Views(size=64, least=0.5, most=0.5, turn=0.0)
    views = (random_view(photo, labels, 64, small, np.random.default_rng(seed))[1] for seed in range(40))
    columns = [np.flatnonzero((view == 8).any(axis=0)) for view in views]
    assert all(25 < len(c) < 40 for c in columns)  # half of the view, and never cut off
    assert min(c[0] for c in columns) < 6 and max(c[-1] for c in columns) > 57


def test_pasted_things_bring_their_border_but_neither_ground_nor_margin():
    photo, labels = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    other_photo, other_labels = np.full((40, 40, 3), 200, np.uint8), np.zeros((40, 40), np.uint8)
    other_labels[:6] = 255  # the margin of its view
    other_labels[18:32, 18:32] = 255
    other_labels[20:30, 20:30] = 12
    paste(photo, labels, other_photo, other_labels)
    assert (labels == 12).sum() == 100 and (labels[18:32, 18:32] == 255).sum() == 14 * 14 - 100
    assert not labels[:18].any()
    assert np.array_equal(photo[..., 0] == 200, labels > 0)


def test_rare_classes_are_pasted_more_often_than_they_are_met(prepared, scene, tmp_path):
    photos = LabelledPhotos(prepared / "train", views=PLAIN)
    counts = np.zeros((101, 21), int)
    counts[:, 0], counts[:100, 8], counts[100, 2] = 100, 50, 50
    photos.counts = counts
    drawn = [photos.partner(np.random.default_rng(seed)) for seed in range(400)]
    assert 18 < drawn.count(100) < 70  # 1 of 101 pictures, but a root of 1 beside a root of 100


def test_void_is_in_no_count(prepared):
    photos = LabelledPhotos(prepared / "train")
    assert photos.counts.shape == (4, 21)
    for i in range(4):
        labels = photos.labels(i)
        assert photos.counts[i].sum() == (labels != 255).sum() < labels.size


def test_colours_vary_and_zero_strength_leaves_them(scene):
    photo = np.asarray(scene(0)[0])
    assert vary_colours(photo, 0.0, np.random.default_rng(0)) is photo
    varied = vary_colours(photo, 1.0, np.random.default_rng(0))
    assert varied.dtype == np.uint8 and varied.shape == photo.shape
    assert 3 < np.abs(varied.astype(int) - photo).mean() < 90


@pytest.mark.parametrize("square", [False, True])
def test_still_views_show_the_middle_or_everything(square):
    labels = np.zeros((40, 80), np.uint8)
    labels[:, :10] = 8
    photo, seen = still_view(np.repeat(labels[..., None] * 20, 3, axis=-1), labels, 40, square)
    assert (8 in seen) == square
    assert np.array_equal(seen == 8, photo[..., 0] > 80)


def test_pictures_come_back_as_they_are_on_disk(prepared, scene):
    photo, labels = LabelledPhotos(prepared / "val", size=48)[0, 0]
    expected = np.asarray(scene(4)[0])[:, 6:54]
    assert np.abs(to_array(photo[None])[0].astype(int) - expected).mean() < 10  # JPEG
    assert np.array_equal(labels.numpy(), np.asarray(scene(4)[1])[:, 6:54])


def test_what_does_not_fit_together_is_named(prepared, scene):
    scene(0, (30, 30))[1].save(prepared / "train" / "labels" / "1.png")
    with pytest.raises(DataError, match=r"1\.jpg is 60x48, .*1\.png 30x30"):
        LabelledPhotos(prepared / "train", size=32)[0, 1]
    (prepared / "train" / "labels" / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 picture\(s\) without a partner.*such as 2\. Run"):
        LabelledPhotos(prepared / "train")
