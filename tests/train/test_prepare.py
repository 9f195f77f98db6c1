import json
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from gan_core.faces import FaceLayout
from gan_core.lineart import SIZE
from train import prepare
from train.data import LAYOUTS, DataError, FacePhotos, PairFolder
from train.lock import FolderInUse, locked
from train.prepare import (
    DONE,
    find_pictures,
    main,
    name_of,
    prepare_face,
    prepare_face_shard,
    prepare_face_shards,
    prepare_faces,
    split_of,
    work_on_row,
    write_picture,
)
from train.shards import Shards

ROOT = Path(__file__).parent.parent.parent
POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from train.prepare import end_with_parent
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), end_with_parent)
    pool.submit(os.getpid).result()
    print("ready", flush=True)
    pool.submit(time.sleep, 600).result()
"""
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


def test_two_commands_cannot_prepare_into_one_folder(photos, out):
    with locked(out), pytest.raises(SystemExit, match=r"error: another process is writing to .*out"):
        main(["faces", str(photos), str(out), "--workers", "1"])
    assert files(out).keys() <= {".lock"}


def test_a_folder_is_held_until_its_last_file_is_written(photos, out, monkeypatch):
    held = []

    def look(path, picture, **options):
        with pytest.raises(FolderInUse), locked(out):
            pass
        held.append(path.name)
        write_picture(path, picture, **options)

    monkeypatch.setattr(prepare, "write_picture", look)
    prepare_in_one_process(photos, out)
    assert held[-1] == "contact_sheet.png"


def test_a_full_disk_says_how_to_go_on(photos, out, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "write_picture", full)
    with pytest.raises(SystemExit, match=r"error: .*No space left.*run the same command again to go on"):
        main(["faces", str(photos), str(out), "--workers", "1"])


def test_workers_end_with_a_command_that_is_killed():
    """Else they would wait for ever, or write next to those of the command that goes on."""
    pool = subprocess.Popen([sys.executable, "-c", POOL], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert pool.stdout.readline() == "ready\n"
    pool.kill()
    # The pipe ends when the last process that holds it does, and the worker has 600 s to sleep.
    assert pool.communicate(timeout=60) == ("", None)


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
    record = prepare_face(("train", "a", photos / "train" / "a.png"), out, 0)
    assert record == {"split": "train", "name": "a.jpg", "layout": LAYOUT.points}
    (out / DONE).write_text(json.dumps({"job": "train/a.png"} | record) + "\n")
    prepare_in_one_process(photos, out)
    assert json.loads((out / "train" / LAYOUTS).read_text())["a.jpg"] == [list(point) for point in LAYOUT.points]
    assert FacePhotos(out / "train").layout(0) == LAYOUT


def test_larger_photos_are_framed(photos, out, monkeypatch):
    monkeypatch.setattr(prepare, "crop_face", lambda photo, size: Image.new("RGB", (size, size), "red"))
    record = prepare_face(("train", "landscape", photos / "train" / "landscape.png"), out, 0)
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


def test_the_photos_of_a_data_set_become_faces(parquet, out, monkeypatch, tmp_path, portrait):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare, "crop_face", lambda photo, size: photo.resize((size, size)))
    main(["faces", str(parquet), str(out), "--val", "0.3", "--workers", "1"])
    kept = {record["name"]: record for record in records(out).values()}
    assert len(kept) == 10 and {record["split"] for record in kept.values()} == {"train", "val"}
    record = kept["train_000003.jpg"]
    written = np.asarray(Image.open(out / record["split"] / record["name"])).astype(int)
    assert np.abs(written - np.asarray(portrait(3, 40).resize((SIZE, SIZE)))).mean() < 4


def test_a_row_without_a_picture_is_left_out(out):
    table = [{"image": None}, {"image": {"bytes": None, "path": None}}]
    for i in range(2):
        assert prepare_face(("train", "a", (table, i, "image")), out, 0) == {"skipped": "its image is missing"}


class Table(list):
    """One row of a data set, as the library gives it."""

    features: ClassVar[dict] = {}

    def select_columns(self, columns):
        return self


@pytest.mark.parametrize(
    ("source", "asked"),
    [("someone/faces", ("someone/faces",)), ("someone/faces:small", ("someone/faces", "small")), ("mnist", ("mnist",))],
)
def test_the_hub_is_asked_for_a_data_set_and_its_config(monkeypatch, tmp_path, source, asked):
    questions = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda *names: questions.append(names) or {"train": Table()})
    assert prepare.load_tables(source).keys() == {"train"}
    assert questions == [asked]


@pytest.mark.parametrize("command", ["faces", "anime", "facades", "voc"])
def test_every_command_says_what_it_takes_to_reach_the_hub(monkeypatch, out, command):
    def offline(*_):
        raise ConnectionError("Couldn't reach 'someone/things' on the Hub")

    monkeypatch.setattr("datasets.load_dataset", offline)
    said = r"error: someone/things is neither a folder .*Check the connection to huggingface\.co, or give a folder with"
    with pytest.raises(SystemExit, match=said):
        main([command, "someone/things", str(out)])
    assert not out.exists()


def test_what_is_private_takes_a_login(monkeypatch, out):
    def unknown(*_):
        raise FileNotFoundError("Dataset 'someone/things' doesn't exist on the Hub or cannot be accessed.")

    monkeypatch.setattr("datasets.load_dataset", unknown)
    with pytest.raises(SystemExit, match=r"doesn't exist on the Hub.*Check the name; .*hf auth login"):
        main(["faces", "someone/things", str(out)])


def test_what_cannot_be_a_name_is_not_looked_for(monkeypatch, tmp_path, out):
    monkeypatch.setattr("datasets.load_dataset", None)
    with pytest.raises(SystemExit, match="there is no such folder, and no data set can be called so"):
        main(["faces", str(tmp_path / "gone"), str(out)])


# --- shards


def test_shards_hold_the_faces_that_files_would_hold(photos, out, capsys):
    main(["faces", str(photos), str(out), "--shards", "2", "--workers", "1"])
    assert capsys.readouterr().out.endswith(f"3 faces in {out / 'train'}, 1 in {out / 'val'}; 2 skipped.\n")
    prepare_in_one_process(photos, out.with_name("files"))
    rows = {split: Shards(out, split).first_rows(9) for split in ("train", "val")}
    assert [len(rows[split]) for split in rows] == [3, 1]
    pictures = {path.read_bytes() for path in (out.with_name("files") / "train").glob("*.jpg")}
    assert {row["target"] for row in rows["train"]} == pictures
    assert all(json.loads(row["layout"]) is None or len(json.loads(row["layout"])) == 3 for row in rows["train"])
    assert "text.jpg" in (out / "skipped.txt").read_text()


def test_an_interrupted_run_makes_only_the_missing_shards(photos, out):
    prepare_face_shards(photos, out, 2, workers=1)
    before, lines = files(out), (out / DONE).read_text().splitlines()
    assert len(lines) == 3
    (out / DONE).write_text("".join(line + "\n" for line in lines[:2]) + lines[2][:20])
    prepare_face_shards(photos, out, 2, workers=1)
    last = json.loads(lines[2])["job"]
    changed = {name for name, time in files(out).items() if before[name] != time and name.endswith(".parquet")}
    assert changed and all(last in name for name in changed)
    assert (out / DONE).read_text().splitlines() == lines


def test_shards_of_other_photos_are_not_mixed_with_the_old_ones(photos, out):
    prepare_face_shards(photos, out, 2, workers=1)
    (photos / "train" / "a.png").unlink()
    with pytest.raises(DataError, match=r"shards of other photos.*another folder"):
        prepare_face_shards(photos, out, 2, workers=1)


@pytest.mark.parametrize(
    "options, said",
    [
        (("--shards", "0"), "at least 1 photo"),
        (("--shards", "4", "--pairs", "2"), "without --pairs"),
        (("--engine", "ray"), "give --shards too"),
        (("--engine", "ray", "--shards", "4"), r"pip install 'ray\[data\]'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(photos, out, options, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit, match=said):
        main(["faces", str(photos), str(out), *options])


def test_what_ray_maps_over_its_rows_is_the_work_itself(photos, out):
    found = find_pictures(photos, val_share=0.0)
    job = "0", {name: found[name] for name in ("train/a.png", "train/text.jpg")}
    work = partial(prepare_face_shard, out=out)
    row = work_on_row({"name": "0"}, pickle.loads(pickle.dumps(work)), {"0": job})
    record = json.loads(row["record"])
    assert (row["name"], record["train"], record["val"], len(record["left_out"])) == ("0", 1, 0, 1)
    assert len(Shards(out, "train")) == 1
