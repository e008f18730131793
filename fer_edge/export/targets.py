"""A bundle to the files that one engine on one kind of machine runs; torch is not involved."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fer_edge.bundle import Bundle
from fer_edge.errors import MissingPackageError
from fer_edge.export.parity import Parity, require_parity
from fer_edge.export.prepare import bundle_graphs, compare_parts, part_shapes, reference_samples
from fer_edge.export.recipe import Precision, TargetRecipe, load_target
from fer_edge.export.writer import Progress, TargetJob, TargetWriter
from fer_edge.files import output_folder, sha256_file, write_json
from fer_edge.recipes import override, recipe_names
from fer_edge.runtime.network import choose_variant

__all__ = ["WRITERS", "TargetFile", "TargetReport", "choose_target", "export_target", "target_job", "target_names"]


def _ort() -> TargetWriter:
    from fer_edge.export.cpu_files import ORT

    return ORT


def _openvino() -> TargetWriter:
    from fer_edge.export.cpu_files import OPENVINO

    return OPENVINO


def _triton() -> TargetWriter:
    from fer_edge.export.triton import TRITON

    return TRITON


WRITERS: Final[Mapping[str, Callable[[], TargetWriter]]] = {"ort": _ort, "openvino": _openvino, "triton": _triton}
"""A recipe's kind -> what imports and gives its writer."""

_OLD_NAMES: Final[Mapping[str, str]] = {
    "cpu": "cpu-arm" if platform.machine().lower() in ("aarch64", "arm64") else "cpu-x86"
}


@dataclass(frozen=True, kw_only=True)
class TargetFile:
    """One file of a target folder, its name relative to the folder."""

    name: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path, folder: Path) -> TargetFile:
        """The entry of a file that stands on disk."""
        name = path.relative_to(folder).as_posix()
        return cls(name=name, sha256=sha256_file(path), size_bytes=path.stat().st_size)


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """What was written for a target, from what, and how well it agrees; `target.json` beside the files.

    Attributes:
        target: the target's name.
        bundle: the bundle's name.
        bundle_sha256: of its manifest.
        variant: the variant that was taken.
        precision: what the files compute in.
        provider: the engine that runs the files, with its version.
        machine: the processor's architecture the files were made on.
        files: what was written.
        parity: the written files against the bundle's own graphs; None where this machine cannot run them.
        not_run: why `parity` is None.
    """

    target: str
    bundle: str
    bundle_sha256: str
    variant: str
    precision: str
    provider: str
    machine: str
    files: tuple[TargetFile, ...]
    parity: Parity | None
    not_run: str

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {
            **asdict(self),
            "files": [asdict(file) for file in self.files],
            "parity": None if self.parity is None else self.parity.to_json(),
        }


def target_names() -> tuple[str, ...]:
    """Names of the shipped targets."""
    return recipe_names("export")


def choose_target(target: str) -> str:
    """The target that `target` means: itself, or for ``"auto"`` the fastest engine that is installed here.

    ``"cpu"`` is ONNX Runtime on this machine's processor: ``"cpu-x86"`` or ``"cpu-arm"``.

    Raises:
        InputError: no such target; the nearest is named.
        MissingPackageError: ``"auto"``, and no engine is installed.
    """
    if target == "auto":
        for package, name in (("openvino", "openvino"), ("onnxruntime", _OLD_NAMES["cpu"])):
            if importlib.util.find_spec(package):
                return name
        raise MissingPackageError(
            "fer-edge export --target auto found neither onnxruntime nor openvino. "
            "Install one with: pip install 'fer-edge[cpu]'"
        )
    name = _OLD_NAMES.get(target, target)
    load_target(name)
    return name


def target_job(
    bundle: Bundle, *, target: str, variant: str | None = None, settings: Iterable[str] = (), clip: bool = False
) -> TargetJob:
    """A target's graphs, ready for its writer.

    Args:
        bundle: an open bundle.
        target: as `choose_target` takes it, or the path of a recipe that ends in ``.toml``.
        variant: a variant's name; the recipe's choice by default.
        settings: ``"key=value"`` changes to the recipe.
        clip: with the fused graph from a clip to its logits.

    Raises:
        InputError: no such target, or a bad setting.
        BundleError: no such variant, or a damaged bundle.
    """
    name = choose_target(target)
    recipe = override(load_target(name), settings)
    chosen = _variant(bundle, recipe, variant or recipe.variant)
    shapes = part_shapes(bundle.manifest, recipe.shapes)
    graphs = bundle_graphs(bundle, chosen, clip=clip)
    return TargetJob(
        name=Path(name).stem if name.endswith(".toml") else name,
        recipe=recipe,
        bundle=bundle,
        variant=chosen,
        precision=_precision(bundle, recipe, chosen),
        graphs=graphs,
        shapes={part: shapes[part] for part in graphs},
    )


def _variant(bundle: Bundle, recipe: TargetRecipe, variant: str) -> str:
    if recipe.tensorrt is None or variant != "auto":
        return choose_variant(bundle.manifest, variant=variant, provider=recipe.provider)
    return choose_variant(bundle.manifest, variant="int8-trt" if recipe.quantized else "fp32")


def _precision(bundle: Bundle, recipe: TargetRecipe, variant: str) -> Precision:
    if recipe.precision == "variant":
        return "variant"
    if bundle.variant(variant).precision == "int8":
        return "int8-fp16" if recipe.float16 else "int8"
    return "fp16" if recipe.float16 else "fp32"


def export_target(
    bundle: Bundle,
    *,
    target: str = "auto",
    out: Path,
    variant: str | None = None,
    settings: Iterable[str] = (),
    clip: bool = False,
    tolerance: float = 1e-3,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TargetReport:
    """Write a variant's graphs in the form that the target's engine runs.

    Args:
        bundle: an open bundle.
        target: a shipped target's name, a recipe's path, or ``"auto"``.
        out: folder for the files and `target.json`.
        variant: a variant's name; the recipe's choice by default.
        settings: ``"key=value"`` changes to the recipe.
        clip: also write the fused graph from a whole clip to its logits (needs the package onnx).
        tolerance: largest difference of any output, on generated faces, between the written files and the bundle's own
            graphs.
        overwrite: replace what stands in `out`.
        progress: told what is going on.

    Raises:
        InputError: no such target.
        BundleError: no such variant, or a damaged bundle.
        SessionError: the engine refuses a graph.
        GateError: the written files do not compute what the bundle's graphs compute; nothing is left behind.
        OutputError: the folder cannot be written.
    """
    job = target_job(bundle, target=target, variant=variant, settings=settings, clip=clip)
    say = progress or (lambda _text, _done, _total: None)
    with output_folder(out, overwrite=overwrite) as folder:
        written = WRITERS[job.recipe.kind]().write(job, folder, say)
        parity = written.parity
        if written.open is not None:
            own = bundle_graphs(bundle, job.variant, clip=clip)
            engine = job.recipe.provider if job.recipe.tensorrt is None else "cpu"
            parity = compare_parts(written.open, reference_samples(bundle, own, job.shapes, provider=engine))
            require_parity(parity, tolerance=tolerance, what=f"the target {job.name!r} against {job.variant}")
        report = TargetReport(
            target=job.name,
            bundle=bundle.manifest.name,
            bundle_sha256=bundle.sha256,
            variant=job.variant,
            precision=job.precision if job.precision != "variant" else bundle.variant(job.variant).precision,
            provider=written.engine,
            machine=platform.machine(),
            files=tuple(TargetFile.of(path, folder) for path in written.files),
            parity=parity,
            not_run=written.not_run,
        )
        write_json(folder / "target.json", report.to_json())
    return report
