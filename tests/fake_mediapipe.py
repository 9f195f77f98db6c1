"""Stands in for MediaPipe, which train/landmarks.py runs with in an environment of its own: its points are known."""

from types import SimpleNamespace

import numpy as np


class Model:
    """Answers every picture alike, or with nothing if it is black."""

    def __init__(self, static_image_mode=True, refine_landmarks=False):
        self.points = 478 if refine_landmarks else 468

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def process(self, picture):
        mask = np.zeros(picture.shape[:2], np.float32)
        mask[64:, 64:192] = 1
        mask[64:, 190:192] = 0.5  # in doubt
        points = [SimpleNamespace(x=i / 478, y=0.25) for i in range(self.points)]
        faces = [SimpleNamespace(landmark=points)] if picture.any() else None
        return SimpleNamespace(multi_face_landmarks=faces, segmentation_mask=mask)


MEDIAPIPE = SimpleNamespace(
    solutions=SimpleNamespace(
        face_mesh=SimpleNamespace(FaceMesh=Model), selfie_segmentation=SimpleNamespace(SelfieSegmentation=Model)
    )
)
