"""Selection of target, variant and precision of an export."""

from __future__ import annotations

import difflib
import importlib.util
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError, MissingPackageError, RecipeError
from fer_edge.core.machine import GpuReport, machine_report
from fer_edge.core.recipes import recipe_names
from fer_edge.core.tensorrt_flavours import Package
from fer_edge.export.recipe import Precision, TargetRecipe, load_target
from fer_edge.runtime.inference import choose_variant

__all__ = ["choose_precision", "choose_target", "target_names", "target_variant"]

_CPU: Final = "cpu-arm" if platform.machine().lower() in ("aarch64", "arm64") else "cpu-x86"
_OLD_NAMES: Final[Mapping[str, str]] = {"cpu": _CPU}
_TENSORRT: Final = ("desktop-tensorrt", "jetson-orin-agx", "jetson-thor")
"""Recipes in order of choice; `jetson-orin-nano` only on its own device."""

_JETPACK7: Final[Mapping[int, str]] = {87: "jetpack7-orin-agx", 110: "jetpack7-thor"}
"""The recipe that comes first on the GPU of a Jetson, by compute capability."""


def target_names() -> tuple[str, ...]:
    """Return the names of the shipped targets."""
    return recipe_names("export")


def choose_target(target: str, *, gpu: bool = True, also: Sequence[str] = ()) -> str:
    """Resolve a target's name; ``"auto"`` is the fastest engine that is installed here.

    In order of speed: TensorRT where a GPU and the TensorRT of a target are present, TensorRT-RTX, ONNX Runtime on
    CUDA, ONNX Runtime on the processor (INT8 measured at least as fast as in OpenVINO), OpenVINO. ``"cpu"`` is ONNX
    Runtime on this machine's processor.

    Args:
        target: a shipped target's name, the path of a recipe, ``"cpu"`` or ``"auto"``.
        gpu: ``"auto"`` also considers the GPU.
        also: other names that the command takes, for the message.

    Raises:
        RecipeError: no such target; the nearest is named.
        MissingPackageError: ``"auto"``, and no engine is installed.
    """
    if target == "auto":
        for name in _installed(gpu=gpu):
            return name
        raise MissingPackageError(
            "fer-edge export --target auto found neither onnxruntime nor openvino. "
            "Install one with: pip install 'fer-edge[cpu]'"
        )
    name = _OLD_NAMES.get(target, target)
    if not name.endswith(".toml") and name not in (names := target_names()):
        near = [each for each in names if target.lower() in each] or difflib.get_close_matches(target, names, n=3)
        hint = f"did you mean {' or '.join(near)}" if near else "fer-edge targets lists them with what they are for"
        known = ", ".join((*also, *names))
        raise RecipeError(f"target: got {target!r}, expected one of {known}, or a .toml file; {hint}")
    load_target(name)
    return name


def _installed(*, gpu: bool) -> Iterator[str]:
    machine = machine_report()
    if gpu and machine.gpus:
        yield from _on_gpu(machine.gpus[0], "Nano" in machine.cpu or "NX" in machine.cpu)
    if importlib.util.find_spec("onnxruntime"):
        yield _CPU
    if importlib.util.find_spec("openvino"):
        yield "openvino"


def _on_gpu(gpu: GpuReport, small: bool) -> Iterator[str]:
    from fer_edge.runtime.tensorrt_library import load_tensorrt

    jetson = ("jetson-orin-nano",) if small else (_JETPACK7[gpu.sm],) if gpu.sm in _JETPACK7 else ()
    recipes: dict[Package, tuple[str, ...]] = {
        "tensorrt": (*jetson, *_TENSORRT),
        "tensorrt_rtx": ("rtx-desktop",),
    }
    for package, names in recipes.items():
        try:
            installed = load_tensorrt(package).flavour
        except FerEdgeError:
            continue
        for name in names:
            recipe = load_target(name)
            if recipe.flavour in (installed.name, *installed.serves) and gpu.sm in (
                recipe.compute_capabilities or (gpu.sm,)
            ):
                yield name
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            yield "cuda"


def target_variant(bundle: Bundle, recipe: TargetRecipe, variant: str | None) -> str:
    """Return the given variant, or the recipe's; for TensorRT the one that its precision needs.

    Raises:
        BundleError: the bundle has no such variant.
    """
    wanted = variant or recipe.variant
    if recipe.tensorrt is not None and wanted == "auto":
        wanted = "int8-trt" if recipe.precision.startswith("int8") else "fp32"
    return choose_variant(bundle.manifest, variant=wanted, provider=recipe.provider)


def choose_precision(bundle: Bundle, recipe: TargetRecipe, variant: str) -> Precision:
    """Return the recipe's precision, with INT8 exactly where the variant is quantized."""
    if recipe.precision == "variant":
        return "variant"
    half = recipe.precision.endswith("fp16")
    if bundle.variant(variant).precision == "int8":
        return "int8-fp16" if half else "int8"
    return "fp16" if half else "fp32"
