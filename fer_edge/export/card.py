"""What every bundle says of its weights' licence and use, and the model card drawn from a manifest."""

from __future__ import annotations

from typing import Final

__all__ = ["INTENDED_USE", "WEIGHTS_LICENCE"]

WEIGHTS_LICENCE: Final = (
    "Research use only, apart from the code's Apache-2.0: trained on FER2013, whose terms are research use. "
    "See LICENSE-WEIGHTS.md."
)
INTENDED_USE: Final = (
    "An auxiliary signal on the device, with nothing kept: the visible facial expression of a driver, one of seven, "
    "from a face crop or a sequence of them. It does not tell what a person feels, and must not decide alone about "
    "anything that matters to a person."
)
