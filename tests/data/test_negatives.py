"""Made negatives: reproducible, of the faces' size, and not faces in disguise."""

from __future__ import annotations

import numpy as np
import pytest

from fer_edge.core.errors import InputError
from fer_edge.core.types import Uint8
from fer_edge.data.faces import synthetic_stills
from fer_edge.data.negatives import NEGATIVES, TRAINED_NEGATIVES, UNTRAINED_NEGATIVES, make_negatives


@pytest.fixture(scope="module")
def faces() -> Uint8:
    return np.asarray(synthetic_stills(14, seed=0)[0])


def test_every_kind_is_either_trained_or_not() -> None:
    assert {*TRAINED_NEGATIVES, *UNTRAINED_NEGATIVES} == set(NEGATIVES)
    assert not set(TRAINED_NEGATIVES) & set(UNTRAINED_NEGATIVES)


@pytest.mark.parametrize("kind", NEGATIVES)
def test_a_kind_is_reproducible_and_varied(faces: Uint8, kind: str) -> None:
    made = make_negatives(kind, 12, faces=faces, seed=3)
    assert (made.shape, made.dtype) == ((12, *faces.shape[1:]), np.uint8)
    assert np.array_equal(made, make_negatives(kind, 12, faces=faces, seed=3))
    assert not np.array_equal(made, make_negatives(kind, 12, faces=faces, seed=4))
    assert len({picture.tobytes() for picture in made}) > 6


def test_scrambling_keeps_the_pixels(faces: Uint8) -> None:
    (picture,) = make_negatives("scrambled", 1, faces=faces[:1], seed=0)
    assert np.array_equal(np.sort(picture, axis=None), np.sort(faces[0], axis=None))
    assert not np.array_equal(picture, faces[0])


def test_no_picture_is_a_face_of_the_source(faces: Uint8) -> None:
    for kind in NEGATIVES:
        for picture in make_negatives(kind, 5, faces=faces, seed=1).astype(np.int64):
            assert np.abs(faces - picture).mean(axis=(1, 2)).min() > 5, kind


def test_bad_arguments_are_refused(faces: Uint8) -> None:
    with pytest.raises(InputError, match="kind: got 'faces', expected one of flat"):
        make_negatives("faces", 1, faces=faces, seed=0)
    with pytest.raises(InputError, match="expected uint8"):
        make_negatives("flat", 1, faces=faces.astype(np.float32), seed=0)  # type: ignore[arg-type]
