import json
from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image

from gan_core.faces import FaceLayout
from gan_core.lineart import SIZE
from train import prepare
from train.data import LAYOUTS, DataError, FacePhotos, PairFolder
from train.prepare import DONE, main, name_of, prepare_face, prepare_faces, split_of, write_picture

LAYOUT = FaceLayout((105.0, 115.0), (151.0, 115.0), (128.0, 176.0))


@pytest.fixture
def photos(tmp_path, portrait):
    """Four framed portraits, a landscape, and a text that calls itself a photo."""
    folder = tmp_path / "photos"
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
    for name, seed in {"train/a.png": 0, "train/b.png": 1, "train/c.png": 2, "val/d.png": 3}.items():
        portrait(seed).save(folder / name)
    Image.new("RGB", (400, 300), "green").save(folder / "train" / "landscape.png")
    (folder / "train" / "text.jpg").write_text("no photo")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def files(folder) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def records(out) -> dict[str, dict]:
    """What became of each photo."""
    logged = [json.loads(line) for line in (out / DONE).read_text().splitlines()]
    assert len(logged) == len({record["job"] for record in logged})
    return {record["job"]: record for record in logged}


def prepare_in_one_process(photos, out, **options):
    prepare_faces(photos, out, workers=1, **options)


def test_framed_photos_are_taken_as_they_are_and_can_be_trained_on(photos, out, portrait):
    prepare_in_one_process(photos, out)
    assert {"train/a.jpg", "train/b.jpg", "train/c.jpg", "val/d.jpg"} <= files(out).keys()
    written = np.asarray(Image.open(out / "train" / "a.jpg")).astype(int)
    assert written.shape == (SIZE, SIZE, 3)
    assert np.abs(written - np.asarray(portrait(0))).mean() < 3
    assert [len(FacePhotos(out / split)) for split in ("train", "val")] == [3, 1]
    assert FacePhotos(out / "train")[0, 0][0].shape == (1, SIZE, SIZE)


def test_what_cannot_be_used_is_left_out_and_the_reasons_are_listed(photos, out):
    prepare_in_one_process(photos, out)
    skipped = (out / "skipped.txt").read_text().splitlines()
    assert len(skipped) == 2
    assert skipped[0].startswith("train/landscape.png: No face was found")
    assert skipped[1].startswith("train/text.jpg: 'text.jpg' is not a picture")
    assert not {"train/landscape.jpg", "train/text.jpg"} & files(out).keys()


def test_the_contact_sheet_shows_every_face_in_four_ways(photos, out):
    prepare_in_one_process(photos, out)
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size == (4 * (SIZE + 2) - 2, 4 * (SIZE + 2) - 2)


def test_a_second_run_does_nothing_again(photos, out):
    prepare_in_one_process(photos, out)
    before, done = files(out), records(out)
    prepare_in_one_process(photos, out)
    after = files(out)
    assert after.keys() == before.keys()
    assert [name for name in before if name.endswith(".jpg") and after[name] != before[name]] == []
    assert records(out) == done


def test_a_run_goes_on_where_it_was_interrupted(photos, out):
    """The last line of its log was cut short: that photo is prepared again, no other."""
    prepare_in_one_process(photos, out)
    complete, before = records(out), files(out)
    log = (out / DONE).read_text().rstrip("\n")
    (out / DONE).write_text(log[:-9])
    last = list(complete.values())[-1]
    name = f"{last['split']}/{last['name']}"
    (out / name).unlink()
    prepare_in_one_process(photos, out)
    assert records(out) == complete
    after = files(out)
    assert after.keys() == before.keys()
    assert [n for n in before if n.endswith(".jpg") and after[n] != before[n]] == [name]


def test_a_photo_that_was_repaired_is_no_longer_skipped(photos, out, portrait):
    prepare_in_one_process(photos, out)
    portrait(7).save(photos / "train" / "text.jpg", "JPEG")
    prepare_in_one_process(photos, out)
    assert "train/text.jpg" in files(out)
    assert (out / "skipped.txt").read_text().count("\n") == 1
    assert len(records(out)) == 6


def test_records_of_an_older_version_count_as_not_done(photos, out):
    out.mkdir()
    (out / DONE).write_text('{"photo": "train/a.png", "split": "train", "name": "a.jpg", "layout": null}\n')
    prepare_in_one_process(photos, out)
    assert len(FacePhotos(out / "train")) == 3
    assert len(records(out)) == 6


def test_new_photos_join_an_earlier_run(photos, out, portrait):
    prepare_in_one_process(photos, out)
    portrait(9).save(photos / "val" / "new.png")
    prepare_in_one_process(photos, out)
    assert len(FacePhotos(out / "val")) == 2
    assert len(records(out)) == 7


def test_several_processes_make_the_same_files(photos, out, tmp_path):
    prepare_in_one_process(photos, out, pairs=2)
    prepare_faces(photos, tmp_path / "other", pairs=2, workers=2)
    assert records(tmp_path / "other") == records(out)
    for name in files(out):
        assert (tmp_path / "other" / name).read_bytes() == (out / name).read_bytes(), name


def test_layouts_lie_beside_the_photos(photos, out, monkeypatch):
    monkeypatch.setattr(prepare, "find_layout", lambda face: LAYOUT)
    record = prepare_face(photos / "train" / "a.png", photos, out, 0.05, 0)
    assert record == {"split": "train", "name": "a.jpg", "layout": astuple(LAYOUT)}
    (out / DONE).write_text(json.dumps({"job": "train/a.png"} | record) + "\n")
    prepare_in_one_process(photos, out)
    assert json.loads((out / "train" / LAYOUTS).read_text())["a.jpg"] == [list(point) for point in astuple(LAYOUT)]
    assert FacePhotos(out / "train").layout(0) == LAYOUT


def test_larger_photos_are_framed(photos, out, monkeypatch):
    monkeypatch.setattr(prepare, "crop_face", lambda photo, size: Image.new("RGB", (size, size), "red"))
    record = prepare_face(photos / "train" / "landscape.png", photos, out, 0.05, 0)
    assert record["name"] == "landscape.jpg"
    with Image.open(out / "train" / "landscape.jpg") as face:
        assert face.size == (SIZE, SIZE)
        assert face.getpixel((9, 9))[0] > 200


def test_pairs_are_written_as_files_to_look_at_and_to_train_on(photos, out):
    prepare_in_one_process(photos, out, pairs=3)
    for split, count in (("train", 9), ("val", 3)):
        pairs = PairFolder(out / "pairs" / split, gray_source=True)
        assert len(pairs) == count
        source, target = pairs[0, 0]
        assert (source.shape, target.shape) == ((1, SIZE, SIZE), (3, SIZE, SIZE))
        assert source.median() == 1
    drawings = {(out / "pairs" / "train" / "source" / f"a_{i}.png").read_bytes() for i in range(3)}
    assert len(drawings) == 3


def test_photos_without_any_face_are_an_error_that_tells_where_the_reasons_are(tmp_path, out):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (400, 300), "green").save(tmp_path / "photos" / "x.png")
    with pytest.raises(DataError, match=r"none of the 1 photos.*skipped\.txt"):
        prepare_in_one_process(tmp_path / "photos", out)
    assert "x.png: No face" in (out / "skipped.txt").read_text()


def test_the_split_of_the_source_is_kept_and_else_stable_by_name(photos):
    assert split_of(photos / "train" / "a.png", photos, 1.0) == "train"
    assert split_of(photos / "val" / "a.png", photos, 0.0) == "val"
    names = [photos / f"{i}.png" for i in range(1000)]
    chosen = [split_of(name, photos, 0.1) for name in names]
    assert chosen == [split_of(name, photos, 0.1) for name in names]
    assert 60 < chosen.count("val") < 140
    assert {split_of(name, photos, 0.0) for name in names} == {"train"}
    assert {split_of(name, photos, 1.0) for name in names} == {"val"}


def test_names_tell_folders_apart(photos):
    names = [name_of(photos / name, photos) for name in ("x.jpg", "anna/x.jpg", "train/x.jpg", "train/berta/x.jpg")]
    assert names == ["x", "anna__x", "x", "berta__x"]


@pytest.mark.parametrize("name, format", [("x.jpg", "JPEG"), ("deep/x.png", "PNG")])
def test_pictures_appear_whole(tmp_path, photo, name, format):
    write_picture(tmp_path / name, photo)
    with Image.open(tmp_path / name) as picture:
        assert (picture.format, picture.size) == (format, photo.size)
    assert files(tmp_path).keys() == {name}


def test_a_picture_that_cannot_be_put_in_its_place_leaves_nothing_behind(tmp_path, photo):
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(OSError):
        write_picture(tmp_path / "x.jpg", photo)
    assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]


def test_the_command_prepares_and_says_what_it_made(photos, out, capsys):
    main(["faces", str(photos), str(out), "--workers", "1", "--pairs", "1"])
    said = capsys.readouterr().out
    assert f"3 faces in {out / 'train'}, 1 in {out / 'val'}" in said
    assert "2 skipped; the reasons are in" in said
    assert len(PairFolder(out / "pairs" / "train")) == 3


@pytest.mark.parametrize("folder", ["gone", "empty"])
def test_the_command_ends_with_a_message_where_there_are_no_photos(tmp_path, out, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=f"error: .*{folder}"):
        main(["faces", str(tmp_path / folder), str(out)])


def test_two_photos_that_would_get_one_name_are_named(tmp_path, portrait):
    photos = tmp_path / "twins"
    photos.mkdir()
    portrait(0).save(photos / "a.png")
    portrait(1).save(photos / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png would both become a\.jpg\. Rename"):
        prepare_faces(photos, tmp_path / "out", val_share=0.0, workers=1)
    assert not (tmp_path / "out").exists()
