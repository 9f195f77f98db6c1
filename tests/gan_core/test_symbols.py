import cv2
import numpy as np
import pytest

from gan_core import symbols
from gan_core.faces import FaceLayout
from gan_core.polylines import SIZE
from gan_core.symbols import feature_lines, head_lines

SEEDS = range(150)
EYES = ("traced", "ellipse", "circle", "arc")


@pytest.fixture(scope="module")
def layout(face_outlines) -> FaceLayout:
    return FaceLayout.of_outlines(face_outlines)


def drawn(layout, lines, seeds=SEEDS) -> np.ndarray:
    """All points of the drawings of many seeds, (N, 2)."""
    return np.concatenate([line for seed in seeds for line in lines(layout, np.random.default_rng(seed))])


def without_person(layout: FaceLayout) -> FaceLayout:
    return FaceLayout.of_outlines({name: line for name, line in layout.outlines.items() if name != "person"})


def test_features_are_drawn_where_the_face_has_them(layout):
    points = drawn(layout, feature_lines)
    # Between the ends of the brows and from their upper edge to the lower lip, a little swollen and unsteady.
    assert points[:, 0].min() > 75 and points[:, 0].max() < 181
    assert points[:, 1].min() > 85 and points[:, 1].max() < 200
    for x, y in [*layout.outlines["pupils"], layout.mouth]:
        assert (np.hypot(points[:, 0] - x, points[:, 1] - y) < 6).any()


def test_the_head_is_drawn_around_the_face(layout):
    points = drawn(layout, head_lines)
    features = (np.abs(points[:, 0] - 128) < 38) & (points[:, 1] > 100) & (points[:, 1] < 180)
    assert not features.any()
    assert (np.abs(points[:, 1] - 214) < 2).any(), "the chin"


def test_a_head_may_stand_without_hair_and_shoulders(layout):
    assert drawn(without_person(layout), head_lines)[:, 1].max() < 220
    assert drawn(layout, head_lines)[:, 1].max() > 240


def test_a_figure_is_drawn_up_to_the_edge_of_the_picture_and_not_along_it(layout):
    box = np.array([(60, 320), (60, 30), (196, 30), (196, 320)], np.float32)
    points = drawn(FaceLayout.of_outlines(layout.outlines | {"person": box}), head_lines)
    side = points[(np.abs(points[:, 0] - 60) < 1) | (np.abs(points[:, 0] - 196) < 1)]
    assert 245 < side[:, 1].max() < SIZE
    assert side[:, 1].min() < 40
    assert points[:, 1].max() < SIZE


@pytest.mark.parametrize("lines", [feature_lines, head_lines])
def test_a_mirrored_face_has_its_symbols_on_the_other_side(layout, lines):
    aside = layout.moved(np.array([[1.0, 0, -30], [0, 1, 0]]))
    mirrored = aside.moved(np.array([[-1.0, 0, SIZE - 1], [0, 1, 0]]))
    assert drawn(aside, lines)[:, 0].mean() == pytest.approx(SIZE - 1 - drawn(mirrored, lines)[:, 0].mean(), abs=3)
    assert mirrored.left_eye[0] < mirrored.right_eye[0]
    for side, eye in zip(("left", "right"), mirrored.outlines["pupils"]):
        assert np.allclose(mirrored.outlines[f"{side}_eye"].mean(axis=0), eye, atol=0.01)
        assert abs(mirrored.outlines[f"{side}_brow"][:, 0].mean() - eye[0]) < 3


def test_a_turned_face_has_its_symbols_turned(layout):
    """As OpenCV turns the picture: eyes, chin and shoulders too."""
    turn = cv2.getRotationMatrix2D((128, 136), 30, 1)
    turned = layout.moved(turn)
    for name, line in layout.outlines.items():
        assert np.allclose(turned.outlines[name], cv2.transform(line[None], turn)[0], atol=1e-3), name
    for lines in (feature_lines, head_lines):
        expected = cv2.transform(drawn(without_person(layout), lines)[None], turn)[0]
        assert np.abs(drawn(without_person(turned), lines).mean(axis=0) - expected.mean(axis=0)).max() < 1


def test_mirrored_twice_is_as_it_was(layout):
    mirror = np.array([[-1.0, 0, SIZE - 1], [0, 1, 0]])
    again = layout.moved(mirror).moved(mirror)
    assert again == layout
    for name, line in layout.outlines.items():
        assert np.allclose(again.outlines[name], line), name


@pytest.mark.parametrize("squeeze, shift", [(0, 100), (1, -400), (40, 0), ([0, 1], 0)], ids=str)
def test_outlines_of_any_size_and_place_can_be_drawn(layout, squeeze, shift):
    odd = FaceLayout.of_outlines({name: line * squeeze + shift for name, line in layout.outlines.items()})
    for lines in (feature_lines, head_lines):
        assert np.isfinite(drawn(odd, lines, range(40))).all()


def test_one_seed_is_one_drawing(layout):
    for lines in (feature_lines, head_lines):
        assert np.array_equal(*(drawn(layout, lines, [5]) for _ in range(2)))


def test_each_feature_has_its_symbols(layout):
    outlines = layout.outlines
    eyes = {symbols._fitted_eye(outlines["left_eye"], kind, 1, 50)[0].tobytes() for kind in EYES}
    assert len(eyes) == len(EYES)
    for feature, face, kinds in (
        (symbols._fitted_nose, outlines, 11),  # six hooks among them
        (symbols._fitted_mouth, outlines, 4),
        (symbols._fitted_mouth, outlines | {"opening": mouth(0.5)}, 3),
    ):
        drawings = {b"".join(map(np.ndarray.tobytes, feature(face, 50, np.random.default_rng(s)))) for s in SEEDS}
        assert len(drawings) == kinds, feature


def mouth(half: float) -> np.ndarray:
    """Its opening, so many pixels up and down."""
    angles = np.radians(np.linspace(180, -180, 20, endpoint=False))
    return np.stack([128 + 22 * np.cos(angles), 182 + half * np.sin(angles)], axis=1).astype(np.float32)


def test_a_single_line_between_the_corners_is_a_closed_mouth(layout):
    """Else the same drawing would stand for teeth and for none."""
    for half, is_open in ((0.5, False), (6, True)):
        face = layout.outlines | {"opening": mouth(half)}
        drawings = [symbols._fitted_mouth(face, 50, np.random.default_rng(seed)) for seed in SEEDS]
        singles = [shape for shapes in drawings for shape in shapes if len(shapes) == 1 and len(shape) == 11]
        assert singles
        for line in singles:
            assert line[5, 1] == pytest.approx(188 if is_open else 182, abs=0.5)  # an arc, or flat


def test_long_hair_is_always_drawn_and_short_hair_is_not(layout):
    box = np.array([(30, 320), (30, 30), (226, 30), (226, 320)], np.float32)
    long_haired = FaceLayout.of_outlines(layout.outlines | {"person": box})
    for face, always in ((long_haired, True), (layout, False)):
        heads = [head_lines(face, np.random.default_rng(seed)) for seed in SEEDS]
        beside = [any((np.abs(line[:, 0] - 128) > 80).any() for line in head) for head in heads]
        assert any(beside) and all(beside) == always


def test_hair_is_drawn_between_face_and_outline_and_bald_heads_get_none(layout):
    oval, centre = layout.outlines["oval"], np.array([128, 136])
    bald = oval * 1.03 - centre * 0.03
    kinds = set()
    for seed in range(40):
        strokes = symbols._fitted_hair(oval, layout.outlines["person"], 0, np.random.default_rng(seed))
        points = np.concatenate(strokes)
        assert (points[:, 1] < 140).all() and (np.hypot(*((points - centre) / (60, 78)).T) > 0.9).all()
        kinds.add(min(len(strokes), 3))
        assert not symbols._fitted_hair(oval, bald, 0, np.random.default_rng(seed))
    assert len(kinds) > 1
