"""CK+, the Extended Cohn-Kanade Dataset (Lucey et al. 2010), in both layouts.

- ``cohn-kanade``: the authors' tree, ``cohn-kanade-images/S005/001/S005_001_00000001.png`` and
  ``Emotion/S005/001/S005_001_00000011_emotion.txt``. A sequence runs from neutral to the peak; its last three frames
  are stills of its expression, its first frame is a neutral one. OpenCV's frontal Haar cascade finds the faces.
- ``CK+48``: ``<expression>/S010_004_00000017.png``, 48x48 faces, the last three frames of each labelled sequence,
  without neutral faces.

Labels are the seven expressions without contempt, or CK+'s own seven emotions (`CKPLUS_EMOTIONS`), which include
contempt and exclude neutral.
"""

from __future__ import annotations

from fer_edge.data.ckplus.folds import FOLDS, split_by_subject, subject_folds
from fer_edge.data.ckplus.stills import LABELS, plan
from fer_edge.data.ckplus.tree import PEAK_FRAMES, CkPlusSequence, ckplus_sequences

__all__ = [
    "FOLDS",
    "LABELS",
    "PEAK_FRAMES",
    "CkPlusSequence",
    "ckplus_sequences",
    "plan",
    "split_by_subject",
    "subject_folds",
]
