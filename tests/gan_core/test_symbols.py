import numpy as np
import pytest

from gan_core.faces import FaceLayout
from gan_core.polylines import SIZE
from gan_core.symbols import feature_lines, head_lines

SEEDS = range(150)


@pytest.fixture(scope="module")
def layout(face_outlines) -> FaceLayout:
    return FaceLayout.of_outlines(face_outlines)


def drawn(layout, lines, seeds=SEEDS) -> np.ndarray:
    """All points of the drawings of many seeds, (N, 2)."""
    return np.concatenate([line for seed in seeds for line in lines(layout, np.random.default_rng(seed))])


def test_features_are_drawn_where_the_face_has_them(layout):
    points = drawn(layout, feature_lines)
    # Between the ends of the brows and from their upper edge to the lower lip, a little swollen and unsteady.
    assert points[:, 0].min() > 75 and points[:, 0].max() < 181
    assert points[:, 1].min() > 85 and points[:, 1].max() < 200
    for x, y in [*layout.outlines["irises"], layout.mouth]:
        assert (np.hypot(points[:, 0] - x, points[:, 1] - y) < 6).any()


def test_the_head_is_drawn_around_the_face(layout):
    points = drawn(layout, head_lines)
    features = (np.abs(points[:, 0] - 128) < 38) & (points[:, 1] > 100) & (points[:, 1] < 180)
    assert not features.any()
    assert (np.abs(points[:, 1] - 214) < 2).any(), "the chin"


def test_a_head_may_stand_without_hair_and_shoulders(layout):
    bare = FaceLayout.of_outlines({name: line for name, line in layout.outlines.items() if name != "person"})
    assert drawn(bare, head_lines)[:, 1].max() < 220
    assert drawn(layout, head_lines)[:, 1].max() > 240


@pytest.mark.parametrize("lines", [feature_lines, head_lines])
def test_a_mirrored_face_has_its_symbols_on_the_other_side(layout, lines):
    aside = layout.moved(np.array([[1.0, 0, -30], [0, 1, 0]]))
    mirrored = aside.moved(np.array([[-1.0, 0, SIZE - 1], [0, 1, 0]]))
    assert drawn(aside, lines)[:, 0].mean() == pytest.approx(SIZE - 1 - drawn(mirrored, lines)[:, 0].mean(), abs=3)
    assert mirrored.left_eye[0] < mirrored.right_eye[0]
    for side, eye in zip(("left", "right"), mirrored.outlines["irises"]):
        assert np.allclose(mirrored.outlines[f"{side}_eye"].mean(axis=0), eye, atol=0.01)
        assert abs(mirrored.outlines[f"{side}_brow"][:, 0].mean() - eye[0]) < 3


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


def test_one_seed_is_one_drawing_and_each_feature_has_several_symbols(layout):
    drawings = [np.concatenate(feature_lines(layout, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert np.array_equal(*drawings[:2])
    assert drawings[1].shape != drawings[2].shape
