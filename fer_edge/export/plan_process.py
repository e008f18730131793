"""Builds an engine in a process of its own: a graph that TensorRT does not expect can end the builder's process."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.connection import Connection

from fer_edge.core.errors import FerEdgeError, SessionError
from fer_edge.core.tensorrt_flavours import Package
from fer_edge.core.types import Progress, no_progress
from fer_edge.export.tensorrt_builder import BuildOptions, BuiltPlan, build_plan
from fer_edge.runtime.session import one_line
from fer_edge.runtime.tensorrt_library import TensorRtLibrary, load_tensorrt

__all__ = ["build_plan_apart"]


def build_plan_apart(
    library: TensorRtLibrary, graph: bytes, options: BuildOptions, *, progress: Progress = no_progress, name: str
) -> BuiltPlan:
    """Build as `build_plan` does, in a process of its own where that can import the library.

    Raises:
        InputError, SessionError: as `build_plan`, or the builder ended its process.
    """
    if library.module.__spec__ is None:
        return build_plan(library, graph, options, progress=progress, name=name)
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_build, args=(sender, library.package, graph, options, name), daemon=True)
    process.start()
    sender.close()
    try:
        while True:
            heard = receiver.recv()
            if isinstance(heard, BuiltPlan):
                return heard
            if isinstance(heard, FerEdgeError):
                raise heard
            progress(*heard)
    except EOFError:
        process.join()
        raise SessionError(
            f"{library.title}: got the end of its process (status {process.exitcode}) while it built {name}, expected "
            "an engine; the graph holds something that it cannot build, or the memory is used up"
        ) from None
    finally:
        process.terminate()
        process.join()
        receiver.close()


def _build(sender: Connection, package: Package, graph: bytes, options: BuildOptions, name: str) -> None:
    """Build in the new process; an interrupt is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        library = load_tensorrt(package)
        sender.send(build_plan(library, graph, options, progress=lambda *step: sender.send(step), name=name))
    except FerEdgeError as error:
        sender.send(error)
    except Exception as error:
        sender.send(SessionError(f"{package} cannot build {name}: {one_line(error)}"))
