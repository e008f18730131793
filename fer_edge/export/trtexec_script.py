"""Target files for devices without fer-edge: checked graphs and a script that builds their engines with trtexec."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

from fer_edge.core.files import write_atomic
from fer_edge.core.tensorrt_flavours import FLAVOURS, TensorRtFlavour
from fer_edge.core.types import Progress
from fer_edge.export.backend import Backend, fill_script
from fer_edge.export.job import Part, PlannedFile, TargetJob

__all__ = ["SCRIPT_FILE", "ScriptBackend", "build_script", "trtexec_flags"]

SCRIPT_FILE: Final = "build-engines.sh"
# trtexec separates layer names from precisions by ":", and from each other by ",".
_PLAIN_NAME: Final = re.compile(r"[\w./-]+")


def trtexec_flags(job: TargetJob, part: Part) -> tuple[str, ...]:
    """List the flags of one graph's build that do not depend on the version of trtexec."""
    recipe, row = job.recipe, _row(job)
    flags = []
    if row.precision_flags and not row.strong_typing:
        flags += ["--fp16"] if job.float16 else []
        flags += ["--int8"] if job.quantized else []
        kept = [name for name in job.keep_float32.get(part, ()) if _PLAIN_NAME.fullmatch(name)]
        if job.float16 and kept:
            flags.append("--precisionConstraints=obey")
            flags.append("--layerPrecisions=" + ",".join(f"{name}:fp32" for name in kept))
    shapes = job.shapes[part]
    if any(not shape.fixed for shape in shapes.values()):
        for edge in ("min", "opt", "max"):
            sizes = (f"{name}:{'x'.join(map(str, getattr(shape, edge)))}" for name, shape in shapes.items())
            flags.append(f"--{edge}Shapes={','.join(sizes)}")
    if recipe.workspace_mib is not None:
        flags.append(f"--memPoolSize=workspace:{recipe.workspace_mib}")
    if recipe.dla_core is not None:
        flags += [f"--useDLACore={recipe.dla_core}", "--allowGPUFallback"]
    return tuple(flags)


def build_script(job: TargetJob) -> str:
    """Write the bash script that builds the missing engines beside the graphs, each whole or not at all."""
    row = _row(job)
    calls = "\n".join(
        f"build {part} \\\n    " + " \\\n    ".join(shlex.quote(flag) for flag in trtexec_flags(job, part))
        for part in job.graphs
    )
    return fill_script(
        SCRIPT_FILE,
        target=job.name,
        bundle=job.bundle.manifest.name,
        bundle_sha256=job.bundle.sha256,
        variant=job.variant,
        precision=job.precision,
        title=row.title,
        found_in=row.found_in,
        since=str(_number(row.version)),
        before=str(_number(_next_version(row))),
        typed="--stronglyTyped" if row.strong_typing else "",
        calls=calls,
    )


def _row(job: TargetJob) -> TensorRtFlavour:
    row = job.recipe.tensorrt
    assert row is not None  # a recipe of this kind names one
    return row


def _number(version: tuple[int, ...]) -> int:
    """Return a version as trtexec prints it: 8500 for 8.5, 100300 for 10.3, 110401 for 11.4.1."""
    major, minor, patch = (*version, 0)[:3]
    return (1000 if major < 10 else 10_000) * major + 100 * minor + patch


def _next_version(row: TensorRtFlavour) -> tuple[int, ...]:
    """Return the first version that a row does not cover: the next row's, or the next major version."""
    later = [each.version for each in FLAVOURS.values() if each.package == row.package and each.version > row.version]
    return min(later, default=(row.version[0] + 1, 0))


class ScriptBackend(Backend):
    """Checked graphs, and the script that builds their engines on the device."""

    def __init__(self, job: TargetJob) -> None:
        super().__init__(job)
        self.not_run = f"{SCRIPT_FILE} builds the engines on the device"

    def planned(self) -> tuple[PlannedFile, ...]:
        engines = ", ".join(f"{part}.engine" for part in self.job.graphs)
        script = PlannedFile(name=SCRIPT_FILE, remark=f"builds {engines}")
        return (*self._one_per_part(".onnx", precision=self.job.precision), script)

    def check(self) -> None:
        """Accept every job: nothing is built here."""

    def write(self, folder: Path, progress: Progress) -> str:
        for number, (part, graph) in enumerate(self.job.graphs.items()):
            progress(f"writing {part}", number, len(self.job.graphs))
            write_atomic(folder / f"{part}.onnx", graph)
        script = folder / SCRIPT_FILE
        write_atomic(script, build_script(self.job).encode())
        script.chmod(script.stat().st_mode | 0o111)
        return _row(self.job).title
