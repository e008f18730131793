"""The interface between a target and the engine whose files it writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

from fer_edge.core.errors import SessionError
from fer_edge.core.files import write_atomic
from fer_edge.core.types import Progress
from fer_edge.export.job import Part, PlannedFile, Run, TargetJob
from fer_edge.export.parity.outputs import Parity

__all__ = ["Backend", "engine_refuses", "fill_script"]


class Backend(ABC):
    """Writes one job's files for one kind of engine.

    Attributes:
        job: the prepared graphs.
        not_run: why this machine cannot run the files; empty where it can.
        parity: of files that hold other graphs than the job's parts; the backend compares them itself.
    """

    def __init__(self, job: TargetJob) -> None:
        self.job = job
        self.not_run = ""
        self.parity: Parity | None = None

    @abstractmethod
    def planned(self) -> tuple[PlannedFile, ...]:
        """List the files that `write` would write, without building anything."""

    @abstractmethod
    def check(self) -> None:
        """Raise what `write` would raise on this machine before it builds anything.

        Raises:
            MissingPackageError: the engine's package is not installed.
            SessionError: the engine cannot serve this job.
        """

    @abstractmethod
    def write(self, folder: Path, progress: Progress) -> str:
        """Write every file straight into `folder`, a scratch folder that is removed when anything raises.

        Returns:
            package and version of the engine that runs the files: ``"onnxruntime 1.32.0"``.

        Raises:
            SessionError: the engine refuses a graph.
        """

    def open(self, folder: Path, part: Part) -> AbstractContextManager[Run]:
        """Open the written file of one part; only where `not_run` is empty and `parity` is None."""
        raise NotImplementedError

    def _one_per_part(self, *endings: str, precision: str = "") -> tuple[PlannedFile, ...]:
        computes = precision or self.job.computes_in
        return tuple(
            PlannedFile(name=f"{part}{ending}", part=part, precision=computes)
            for part in self.job.graphs
            for ending in endings
        )


def engine_refuses(engine: str, part: str, error: Exception, *, path: Path, graph: bytes) -> SessionError:
    """Build the error of an engine that refused a graph, unless the disk is full.

    The engines write their files themselves and report a full disk as a faulty graph.

    Raises:
        OutputError: the graph's own bytes cannot be written either.
    """
    write_atomic(path, graph)
    path.unlink()
    return SessionError(f"{engine} refuses {part}: {' '.join(str(error).split())}")


def fill_script(name: str, **values: str) -> str:
    """Return a shell script of the folder `scripts`, with each ``@key@`` replaced by its value."""
    text = (Path(__file__).parent / "scripts" / name).read_text("utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
