import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gan_core.faces import FaceLayout
from gan_core.image import open_picture
from tests.fake_mediapipe import MEDIAPIPE
from train import landmarks
from train.data import OUTLINES, FacePhotos
from train.voc import LabelledPhotos, prepare_voc


@pytest.fixture
def data(tmp_path, portrait):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        portrait(0).save(tmp_path / split / "a.png")
    Image.new("RGB", (256, 256)).save(tmp_path / "train" / "black.png")
    (tmp_path / "train" / "broken.jpg").write_text("no picture")
    return tmp_path


def run(monkeypatch, folder, *options):
    monkeypatch.setitem(sys.modules, "mediapipe", MEDIAPIPE)
    landmarks.main([str(folder), *map(str, options)])


def test_outlines_are_written_in_pixels_and_training_reads_them(data, monkeypatch, capsys):
    run(monkeypatch, data)
    assert f"1 faces in {data / 'train'}" in capsys.readouterr().out
    found = json.loads((data / "train" / OUTLINES).read_text())
    assert found.keys() == {"a.png"}
    outlines = found["a.png"]
    assert outlines["pupils"] == [[round(i / 478 * 256, 1), 64.0] for i in (468, 473)]
    assert outlines.keys() == {*landmarks.MESH, "person"}
    x, y = np.array(outlines["person"]).T
    assert abs(x.min() - 64) <= 1 and abs(x.max() - 191) <= 1
    assert abs(y.min() - 64) <= 1 and y.max() == 255 + landmarks.BEYOND  # cut off below, and goes on there
    assert open_picture(data / "outlines.png").size == (256, 256)
    (data / "train" / "broken.jpg").unlink()
    assert isinstance(FacePhotos(data / "train").layout(0), FaceLayout)


def test_each_feature_has_its_points(face_outlines):
    for name, indices in landmarks.MESH.items():
        assert len(set(indices)) == len(indices) == len(face_outlines[name]), name
    # Points of MediaPipe's mesh that every drawing of it shows on the left, seen by the viewer.
    for name, point in (("left_eye", 33), ("left_brow", 70), ("right_eye", 263), ("right_brow", 300)):
        assert point in landmarks.MESH[name]


def test_class_maps_of_people_are_added_to_what_segmentation_is_trained_on(data, monkeypatch, capsys, devkit):
    run(monkeypatch, data, "--people", data / "people", "--at-most", 2)
    assert "1 people" in capsys.readouterr().out  # of a.png and broken.jpg
    prepare_voc(str(devkit), data / "voc", workers=1)
    prepare_voc(str(data / "people"), data / "voc", workers=1)
    trained_on = LabelledPhotos(data / "voc" / "train")
    assert [photo.stem for photo, _ in trained_on.files] == [*(f"2007_{i}" for i in range(5)), "a"]
    labels = trained_on.labels(5)
    assert (labels[64:, 64:190] == landmarks.PERSON).all() and not labels[:, :64].any()
    assert (labels[64:, 190:192] == landmarks.VOID).all()
    assert len(LabelledPhotos(data / "voc" / "val")) == 2


def test_people_are_at_least_one_and_come_from_the_training_photos(data, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, data, "--people", data / "people", "--at-most", 0)
    assert "--at-most must be at least 1" in capsys.readouterr().err
    (tmp_path / "other" / "val").mkdir(parents=True)
    with pytest.raises(SystemExit, match="has no train/"):
        run(monkeypatch, tmp_path / "other", "--people", data / "people")
    assert not (data / "people").exists()


def test_a_folder_that_was_not_prepared_is_named(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"has no train/.*train.prepare faces"):
        run(monkeypatch, tmp_path)


def test_without_mediapipe_the_remedy_is_said_and_nothing_is_written(data):
    script = Path(landmarks.__file__)
    done = subprocess.run([sys.executable, script, data], capture_output=True, text=True)
    assert done.returncode == 1
    assert "mediapipe" in done.stderr and "pip install mediapipe==" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (data / "train" / OUTLINES).exists()


def test_a_mediapipe_without_its_models_is_named(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace())
    with pytest.raises(SystemExit, match="comes without its models"):
        landmarks.main([str(data)])
