from __future__ import annotations

import cv2
import numpy as np
import pytest

from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data.faces import contact_sheet, synthetic_stills


def test_shapes_types_and_balance() -> None:
    images, labels = synthetic_stills(15, seed=4)
    assert (images.dtype, images.shape) == (np.uint8, (15, 48, 48))
    assert (labels.dtype, labels.shape) == (np.int64, (15,))
    for start in (0, 7):
        assert sorted(labels[start : start + 7]) == list(range(7))
    assert images.std(axis=(1, 2)).min() > 8


def test_a_seed_repeats_itself_and_a_longer_set_begins_with_the_shorter() -> None:
    images, labels = synthetic_stills(9, seed=11)
    again, same = synthetic_stills(5, seed=11)
    assert (images[:5] == again).all()
    assert (labels[:5] == same).all()
    others, _ = synthetic_stills(5, seed=12)
    assert (images[:5] != others).any(axis=(1, 2)).all()


def test_other_sizes() -> None:
    images, _ = synthetic_stills(2, seed=0, size=128)
    assert images.shape == (2, 128, 128)


def test_faces_fill_the_crop_as_in_fer2013() -> None:
    """On average the eyes are a dark band at two fifths of the height, darker than the cheeks below."""
    images, _ = synthetic_stills(70, seed=2)
    mean = images.mean(axis=0)
    eyes, cheeks, forehead = mean[18:22, 12:36].mean(), mean[25:30, 10:38].mean(), mean[8:13, 14:34].mean()
    assert eyes + 8 < cheeks
    assert eyes + 8 < forehead


def test_a_linear_classifier_tells_the_expressions_apart() -> None:
    images, labels = synthetic_stills(420, seed=3)
    features = gradients(images)
    features -= features[:315].mean(axis=0)
    known, unknown = features[:315], features[315:]
    kernel = known @ known.T
    targets = np.eye(len(EXPRESSIONS))[labels[:315]] - 1 / len(EXPRESSIONS)
    weights = np.linalg.solve(kernel + 0.1 * np.trace(kernel) / len(kernel) * np.eye(len(kernel)), targets)
    predicted = (unknown @ known.T @ weights).argmax(axis=1)
    assert (predicted == labels[315:]).mean() >= 0.9


def gradients(images: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients."""
    hog = cv2.HOGDescriptor((48, 48), (16, 16), (8, 8), (8, 8), 9)
    return np.stack([np.ravel(hog.compute(image)) for image in images])


def test_contact_sheet() -> None:
    sheet = contact_sheet(1, seed=0, cell=64)
    assert (sheet.dtype, sheet.shape) == (np.uint8, (24 + 64, 7 * 64, 3))


def test_the_smallest_crop_holds_a_face() -> None:
    assert synthetic_stills(21, seed=2, size=17)[0].shape == (21, 17, 17)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"count": 0}, "count: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"size": 16}, "size: got 16, expected 17 to 512"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(InputError, match=named):
        synthetic_stills(**{"count": 1, "seed": 0, **arguments})


def test_a_bad_contact_sheet_is_refused() -> None:
    with pytest.raises(InputError, match="people: got 0"):
        contact_sheet(0, seed=0)
