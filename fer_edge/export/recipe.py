"""Recipes of targets: engine, precision, shapes and form of the graphs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from fer_edge.core.json import expect
from fer_edge.core.recipes import load_recipe
from fer_edge.core.tensorrt_flavours import FLAVOURS, TensorRtFlavour
from fer_edge.export.triton_config import TritonOptions

__all__ = ["EngineKind", "LstmForm", "Precision", "ShapeRange", "Shapes", "TargetRecipe", "load_target"]

EngineKind = Literal["ort", "openvino", "tensorrt", "script", "triton", "litert"]
Precision = Literal["variant", "fp32", "fp16", "int8", "int8-fp16"]
LstmForm = Literal["loop", "unrolled"]

_TENSORRT_KINDS: Final = ("tensorrt", "script")


@dataclass(frozen=True, kw_only=True)
class ShapeRange:
    """The sizes of one dynamic dimension; it is fixed in the graph where `min` equals `max`.

    Attributes:
        min: smallest size.
        opt: the size that an engine is tuned for.
        max: largest size.
    """

    min: int = 1
    opt: int = 1
    max: int = 1

    def __post_init__(self) -> None:
        ordered = 1 <= self.min <= self.opt <= self.max <= 65536
        expect(ordered, "min", (self.min, self.opt, self.max), "1 <= min <= opt <= max <= 65536")

    @property
    def fixed(self) -> bool:
        """Whether the dimension has one size."""
        return self.min == self.max


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The open dimensions of a bundle's graphs.

    Attributes:
        frames: faces per run of the encoder (N).
        windows: windows per run of the head (B), and clips per run of the fused graph.
        time: frames of a window (T); by default fixed at the bundle's window, since the runtime pads short windows.
        dynamic: keep the dimensions open and only test the ranges; for engines that need no profile.
    """

    frames: ShapeRange = field(default_factory=ShapeRange)
    windows: ShapeRange = field(default_factory=ShapeRange)
    time: ShapeRange | None = None
    dynamic: bool = False


@dataclass(frozen=True, kw_only=True)
class TargetRecipe:
    """A target.

    Attributes:
        summary: one line on the target, shown by `--dry-run`.
        kind: the backend that writes the files.
        provider: the runtime's provider that runs them (`fer_edge.runtime.providers`).
        variant: the bundle's variant; ``"auto"`` follows the precision, or for ``"variant"`` the provider.
        precision: of the computation. ``"variant"``: as in the graphs. ``"fp16"``: FP32 graphs with FP16 arithmetic
            where range allows. ``"int8"``: Q/DQ with FP32 around it. ``"int8-fp16"``: Q/DQ with FP16 around it.
        flavour: the row of `FLAVOURS` that builds; for the kinds ``"tensorrt"`` and ``"script"``.
        shapes: the open dimensions.
        lstm: ``"loop"`` keeps the LSTM node, ``"unrolled"`` has no loop (fixed number of steps).
        float_weights: restore weights stored as int8 to float.
        fold: fold constants.
        opset: newest opset of the graphs; the flavour's limit by default. For TensorRT.
        workspace_mib: memory for the builder's tactics, in MiB; None for the builder's default.
        compute_capabilities: GPUs to build ahead of time for (RTX); empty for the GPU of this machine.
        dla_core: the deep learning accelerator to use beside the GPU; None for the GPU only.
        triton: server settings, for the kind ``"triton"``.

    Raises:
        InputError: values that contradict each other.
    """

    summary: str
    kind: EngineKind
    provider: str
    variant: str = "auto"
    precision: Precision = "variant"
    flavour: str | None = None
    shapes: Shapes = field(default_factory=Shapes)
    lstm: LstmForm = "loop"
    float_weights: bool = False
    fold: bool = False
    opset: int | None = None
    workspace_mib: int | None = None
    compute_capabilities: tuple[int, ...] = ()
    dla_core: int | None = None
    triton: TritonOptions = field(default_factory=TritonOptions)

    def __post_init__(self) -> None:
        trt, kind = self.kind in _TENSORRT_KINDS, f"the kind {self.kind!r}"
        known = self.flavour in FLAVOURS if trt else self.flavour is None
        typed = trt != (self.precision == "variant")
        one = self.shapes.time is None or self.shapes.time.fixed
        unrolls = self.lstm != "unrolled" or (not self.shapes.dynamic and one)
        self._check(bool(self.summary.strip()), "summary", "one line on the target")
        self._check(bool(self.provider.strip()), "provider", "the runtime's provider that runs the files")
        wanted = f"one of {', '.join(FLAVOURS)}" if trt else f"none: {kind} is not TensorRT"
        self._check(known, "flavour", wanted)
        wanted = "fp32, fp16, int8 or int8-fp16" if trt else f"'variant': {kind} runs graphs unchanged"
        self._check(typed, "precision", wanted)
        self._check(self.opset is None or trt, "opset", f"none: {kind} is not TensorRT")
        self._check(self.opset is None or 9 <= self.opset <= 25, "opset", "9 to 25")
        mib = self.workspace_mib
        self._check(mib is None or 1 <= mib <= 65536, "workspace_mib", "1 to 65536 MiB")
        served = self.kind == "triton" or self.triton == TritonOptions()
        self._check(served, "triton", f"no such table: {kind} is not a server")
        batches = self.kind != "triton" or self.shapes.dynamic
        expect(batches, "shapes.dynamic", self.shapes.dynamic, "true: a server batches its requests")
        self._check(unrolls, "lstm", "'loop': unrolling needs a fixed number of steps (shapes.time)")
        self._check_devices(self.tensorrt, kind)

    def _check(self, condition: bool, name: str, expected: str) -> None:
        expect(condition, name, getattr(self, name), expected)

    def _check_devices(self, row: TensorRtFlavour | None, kind: str) -> None:
        title, known = (row.title, row.compute_capabilities) if row else (kind, ())
        for capability in self.compute_capabilities:
            wanted = f"one of {', '.join(map(str, known))}" if row else f"none: {kind} builds for no GPU"
            expect(capability in known, "compute_capabilities", capability, wanted)
        ahead = not self.compute_capabilities or (row is not None and row.package == "tensorrt_rtx")
        self._check(ahead, "compute_capabilities", "none: only TensorRT-RTX builds for other GPUs")
        if self.dla_core is not None:
            self._check(row is not None and row.dla, "dla_core", f"none: {title} has no accelerator")
            self._check(0 <= self.dla_core <= 1, "dla_core", "0 or 1")
        scripted = self.kind != "script" or (row is not None and row.package == "tensorrt")
        self._check(scripted, "flavour", "a TensorRT with trtexec; TensorRT-RTX has another tool")

    @property
    def tensorrt(self) -> TensorRtFlavour | None:
        """The row of the TensorRT that builds; None for other engines."""
        return FLAVOURS[self.flavour] if self.flavour is not None else None


def load_target(name_or_path: str) -> TargetRecipe:
    """Load a shipped target by name, or a recipe file by path.

    Raises:
        RecipeError: as `load_recipe`; for an unknown name the nearest is named.
    """
    return load_recipe(TargetRecipe, name_or_path, room="export")
