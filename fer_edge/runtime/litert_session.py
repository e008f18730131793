"""LiteRT (formerly TensorFlow Lite) on the CPU, with XNNPACK, as a session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from fer_edge.core.errors import SessionError
from fer_edge.core.types import Array
from fer_edge.runtime.session import Session, SessionInfo, TensorSpec, one_line

__all__ = ["LITERT_ENDING", "LiteRtSession", "find_litert"]

LITERT_ENDING: Final = ".tflite"


def find_litert(where: Path, *, graph_sha256: str) -> bytes:
    """Read the `.tflite` file that was made from a graph: the named file, or the one in a folder.

    Raises:
        SessionError: there is none.
    """
    marker = f'"graph_sha256": "{graph_sha256}"'.encode()  # in the file's metadata
    named = where / f"{graph_sha256}{LITERT_ENDING}"
    files = [where] if where.is_file() else [named, *sorted(where.glob(f"*{LITERT_ENDING}"))]
    for path in files:
        if path.is_file() and marker in (content := path.read_bytes()):
            return content
    raise SessionError(
        f"{where}: got no {LITERT_ENDING} file of the graph {graph_sha256[:16]}, expected one; make it with: "
        "fer-edge export BUNDLE --target litert --out FOLDER, or run with --rebuild"
    )


class LiteRtSession(Session):
    """A `.tflite` file that `fer-edge export BUNDLE --target litert` wrote. Runs wait for each other.

    The file has one signature for each number of frames in a window (1 and the whole window), of batch 1; larger
    batches run row by row.

    Args:
        model: the file's bytes.
        threads: threads of XNNPACK.

    Raises:
        SessionError: LiteRT refuses the file.
    """

    def __init__(self, model: bytes, *, threads: int) -> None:
        try:
            self._interpreter: Any = Interpreter(model_content=model, num_threads=threads)
            keys = self._interpreter.get_signature_list()
            runners = [self._interpreter.get_signature_runner(key) for key in keys]
            described = [(each.get_input_details(), each.get_output_details()) for each in runners]
            inputs, outputs = (_specs([pair[side] for pair in described]) for side in (0, 1))
        except Exception as error:  # ValueError and RuntimeError
            raise SessionError(f"LiteRT refuses the file: {one_line(error)}") from error
        shapes = [tuple(taken[inputs[0].name]["shape"][1:]) for taken, _ in described]
        self._runners = dict(zip(shapes, runners, strict=True))
        version = f"ai-edge-litert {ai_edge_litert.__version__}"
        super().__init__(
            SessionInfo(inputs=inputs, outputs=outputs, provider="litert", provider_version=version, threads=threads)
        )

    def _compute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        first = feeds[self.inputs[0].name]
        run = self._runners[first.shape[1:]]
        rows = [run(**{name: array[row : row + 1] for name, array in feeds.items()}) for row in range(len(first))]
        return rows[0] if len(rows) == 1 else {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def _release(self) -> None:
        self._runners.clear()
        self._interpreter = None


def _specs(signatures: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    """Describe the tensors of all signatures together: the batch is open, and so is what differs between them."""
    found = []
    for name, tensor in signatures[0].items():
        shapes = np.array([each[name]["shape"] for each in signatures])
        shape = [int(sizes[0]) if len(set(sizes)) == 1 else None for sizes in shapes.T.tolist()]
        steps = tuple(sorted({sizes[1] for sizes in shapes.tolist()})) if None in shape[1:] else ()
        found.append(TensorSpec(name=name, dtype=np.dtype(tensor["dtype"]), shape=(None, *shape[1:]), steps=steps))
    return tuple(found)
