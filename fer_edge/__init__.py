"""Driver-expression recognition from training to the vehicle: train, compress, export, run, measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_edge.bundle import Bundle as Bundle
    from fer_edge.runtime import Recognizer as Recognizer

__version__ = "0.1.0"
__all__ = ["Bundle", "Recognizer", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Bundle":
        from fer_edge.bundle import Bundle

        return Bundle
    if name == "Recognizer":
        from fer_edge.runtime import Recognizer

        return Recognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
