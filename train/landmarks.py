"""Outlines of faces, so that training can draw them the way people do: an almond, a hook, an arc, in the right place.

    python -m venv build/outlines && build/outlines/bin/pip install mediapipe==0.10.21
    build/outlines/bin/python train/landmarks.py DATA

writes an `outlines.json` into DATA/train and DATA/val, as `python -m train.prepare faces` made them, where training
finds it; and DATA/outlines.png, to look at. With `--people OUT` it writes some of the photos in DATA/train to
OUT/train/images, and to OUT/train/masks where the person is, which `python -m train.prepare voc OUT data/voc` adds to
what segmentation is trained on. It is a script that stands alone, because MediaPipe wants an older NumPy and another
OpenCV than the rest of this project.

Kartynnik et al.: Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs (2019); Grishchenko et al.:
Attention Mesh (2020). The models come with the package; both are under the Apache License 2.0.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

# Points of MediaPipe's face mesh. Left and right as the viewer sees them, which is the other way round for the person.
MESH = {
    "left_eye": [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246],
    "right_eye": [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466],
    "left_brow": [70, 63, 105, 66, 107, 55, 65, 52, 53, 46],
    "right_brow": [300, 293, 334, 296, 336, 285, 295, 282, 283, 276],
    "pupils": [468, 473],
    "bridge": [168, 6, 197, 195, 5, 4],
    "nostrils": [64, 98, 97, 2, 326, 327, 294],
    "lips": [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185],
    "opening": [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191],
    "oval": [
        *[10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377],
        *[152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109],
    ],
}
PERSON, VOID = 15, 255  # in Pascal VOC's class maps
DOUBT = 0.2  # what is neither less than this nor more than 1 - DOUBT a person is void: nobody learns from it
BEYOND = 64  # pixels that a figure goes on outside the picture
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def find_outlines(folder: Path, mediapipe, cv2) -> dict[str, dict]:
    """The outlines of each picture in which a face is found, in pixels; `person` goes around the whole figure."""
    found = {}
    with (
        mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh,
        mediapipe.solutions.selfie_segmentation.SelfieSegmentation() as cutter,
    ):
        for file in pictures_in(folder):
            picture = cv2.imread(str(file))
            if picture is None:
                continue
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            height, width = picture.shape[:2]
            faces = mesh.process(picture).multi_face_landmarks
            if not faces:
                continue
            points = [(round(p.x * width, 1), round(p.y * height, 1)) for p in faces[0].landmark]
            outlines = {name: [points[i] for i in indices] for name, indices in MESH.items()}
            person = (cutter.process(picture).segmentation_mask * 255).astype("uint8")
            # Where the picture cuts the figure off, its outline goes on outside, and comes back there.
            person = cv2.copyMakeBorder(person, BEYOND, BEYOND, BEYOND, BEYOND, cv2.BORDER_REPLICATE)
            _, person = cv2.threshold(cv2.GaussianBlur(person, (0, 0), 2), 127, 255, cv2.THRESH_BINARY)
            edges, _ = cv2.findContours(person, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            if edges:
                largest = cv2.approxPolyDP(max(edges, key=cv2.contourArea), 1.0, True)[:, 0]
                outlines["person"] = (largest - BEYOND).tolist()
            found[file.name] = outlines
    return found


def write_people(folder: Path, out: Path, count: int, mediapipe, cv2) -> int:
    """Some of the pictures, evenly chosen, and their class maps. Returns how many there are."""
    import numpy as np

    files, written = pictures_in(folder), 0
    for part in ("images", "masks"):
        (out / part).mkdir(parents=True, exist_ok=True)
    with mediapipe.solutions.selfie_segmentation.SelfieSegmentation() as cutter:
        for file in files[:: max(1, -(-len(files) // count))]:
            picture = cv2.imread(str(file))
            if picture is None:
                continue
            person = cutter.process(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)).segmentation_mask  # in [0, 1]
            labels = np.select([person > 1 - DOUBT, person > DOUBT], [PERSON, VOID], 0).astype(np.uint8)
            shutil.copy(file, out / "images" / file.name)
            cv2.imwrite(str(out / "masks" / f"{file.stem}.png"), labels)
            written += 1
    return written


def draw_sheet(folder: Path, found: dict[str, dict], cv2, count: int = 8):
    """Some of the faces in a row, with their outlines in yellow: BGR `(H, W, 3)`."""
    import numpy as np

    faces = []
    for name in sorted(found)[:: max(1, len(found) // count)][:count]:
        face = cv2.imread(str(folder / name))
        height, width = face.shape[:2]
        face = cv2.resize(face, (256, 256))
        lines = [np.array(line) * (256 / width, 256 / height) for line in found[name].values()]
        cv2.polylines(face, [line.round().astype(np.int32) for line in lines], False, (0, 255, 255), 1, cv2.LINE_AA)
        faces.append(face)
    return np.hstack(faces)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Writes outlines.json beside prepared face photos.")
    parser.add_argument("data", type=Path, help="the folder with train/ and val/ that `train.prepare faces` wrote")
    parser.add_argument("--people", type=Path, metavar="OUT", help="write photos and class maps of people instead")
    parser.add_argument("--at-most", type=int, default=800, metavar="N", help="of those (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.at_most < 1:
        parser.error("--at-most must be at least 1")
    data = options.data
    folders = [data / split for split in ("train", "val") if (data / split).is_dir()]
    if not folders or (options.people and data / "train" not in folders):
        raise SystemExit(f"{data} has no train/. Run `python -m train.prepare faces PHOTOS {data}` first.")
    try:
        import cv2
        import mediapipe
    except ImportError as error:
        raise SystemExit(f"{error}. In an environment of its own: pip install mediapipe==0.10.21") from error
    if not hasattr(mediapipe, "solutions"):
        raise SystemExit("This MediaPipe comes without its models. Install the one that has them: mediapipe==0.10.21")
    if options.people:
        written = write_people(data / "train", options.people / "train", options.at_most, mediapipe, cv2)
        print(f"{written} people in {options.people}")
        return
    for folder in folders:
        found = find_outlines(folder, mediapipe, cv2)
        unfinished = folder / "outlines.json.part"
        unfinished.write_text(json.dumps(found))
        os.replace(unfinished, folder / "outlines.json")
        print(f"{len(found)} faces in {folder}")
        if found:
            cv2.imwrite(str(data / "outlines.png"), draw_sheet(folder, found, cv2))


if __name__ == "__main__":
    main()
