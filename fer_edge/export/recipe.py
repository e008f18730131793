"""What a target recipe says: the engine, the precision, the shapes and the form of the graphs that one target runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from fer_edge.core.json import expect
from fer_edge.core.recipes import load_recipe
from fer_edge.core.tensorrt_flavours import FLAVOURS, TensorRtFlavour
from fer_edge.export.triton_config import TritonOptions

__all__ = ["EngineKind", "LstmForm", "Precision", "ShapeRange", "Shapes", "TargetRecipe", "load_target"]

EngineKind = Literal["ort", "openvino", "tensorrt", "script", "triton"]
Precision = Literal["variant", "fp32", "fp16", "int8", "int8-fp16"]
LstmForm = Literal["loop", "hoisted", "unrolled"]

_TENSORRT_KINDS: Final = ("tensorrt", "script")
_INT8: Final = ("int8", "int8-fp16")


@dataclass(frozen=True, kw_only=True)
class ShapeRange:
    """One dynamic dimension of a target: what it must take, and what it is tuned for.

    Attributes:
        min: smallest size.
        opt: the size that an engine is tuned for.
        max: largest size; equal to `min` the dimension is fixed in the graph.
    """

    min: int = 1
    opt: int = 1
    max: int = 1

    def __post_init__(self) -> None:
        ordered = 1 <= self.min <= self.opt <= self.max <= 65536
        expect(ordered, "min", (self.min, self.opt, self.max), "1 <= min <= opt <= max <= 65536")

    @property
    def fixed(self) -> bool:
        """The dimension has one size."""
        return self.min == self.max

    def __str__(self) -> str:
        return str(self.opt) if self.fixed else f"{self.min}..{self.opt}..{self.max}"


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The dimensions that a bundle's graphs leave open, by what they count.

    Attributes:
        frames: faces in one run of the encoder (its N).
        windows: windows in one run of the head (its B), and clips in one run of the fused graph.
        time: frames of a window (T). Without it the bundle's window is taken and fixed: the runtime fills a window that
            is short by repeating its oldest feature.
        dynamic: the dimensions stay open, and the ranges above are what is tested; for engines that need no profile.
    """

    frames: ShapeRange = field(default_factory=ShapeRange)
    windows: ShapeRange = field(default_factory=ShapeRange)
    time: ShapeRange | None = None
    dynamic: bool = False

    def of_time(self, window: int) -> ShapeRange:
        """The range of T for a bundle whose window is `window` frames."""
        return self.time or ShapeRange(min=window, opt=window, max=window)


@dataclass(frozen=True, kw_only=True)
class TargetRecipe:
    """One target, whole.

    Attributes:
        summary: one line on what the target is, shown by `--dry-run`.
        kind: which writer makes the files.
        provider: the runtime's provider that runs them (`fer_edge.runtime.providers`).
        variant: the bundle's variant; ``"auto"`` follows the precision, or for ``"variant"`` what suits the provider.
        precision: what the engine computes in. ``"variant"``: as the variant's graphs say. ``"fp16"``: the FP32 graphs
            with FP16 arithmetic where range allows. ``"int8"``: Q/DQ with FP32 around it. ``"int8-fp16"``: Q/DQ with
            FP16 around it.
        flavour: the row of `FLAVOURS` that builds; for the kinds ``"tensorrt"`` and ``"script"``.
        shapes: the open dimensions.
        lstm: the form of recurrent layers: ``"loop"`` leaves the LSTM node, ``"hoisted"`` computes X·W of all steps in
            one product before the loop, ``"unrolled"`` does without a loop (fixed number of steps).
        float_weights: weights that only storage made int8 come back to float in the engine's graphs.
        fold: compute constants ahead of time and merge what can be merged.
        opset: newest opset that the graphs may have; the flavour's limit by default. For TensorRT.
        workspace_mib: memory that the builder's tactics may use, in MiB; None leaves the builder's own.
        compute_capabilities: the GPUs to build ahead of time for (RTX); empty means the GPU of this machine.
        dla_core: the deep learning accelerator that takes what layers it can; None keeps everything on the GPU.
        gpu_fallback: layers that the accelerator cannot take may run on the GPU.
        optimization_level: the builder's, 0 to 5.
        sparse_weights: the builder may take kernels for 2:4 sparse weights, where the bundle says that its weights are.
        version_compatible: the engine also loads in later versions of one major version.
        hardware_compatible: the engine also loads on other GPUs of Ampere or later.
        triton: how a server runs the models; for the kind ``"triton"``.

    Raises:
        InputError: values that do not fit each other, named.
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
    gpu_fallback: bool = True
    optimization_level: int = 3
    sparse_weights: bool = True
    version_compatible: bool = False
    hardware_compatible: bool = False
    triton: TritonOptions = field(default_factory=TritonOptions)

    def __post_init__(self) -> None:
        needed = self.kind in _TENSORRT_KINDS
        expect(bool(self.summary.strip()), "summary", self.summary, "one line on what the target is")
        expect(bool(self.provider.strip()), "provider", self.provider, "the runtime's provider that runs the files")
        known = self.flavour in FLAVOURS if needed else self.flavour is None
        wanted = f"one of {', '.join(FLAVOURS)}" if needed else f"none: the kind {self.kind!r} is not TensorRT"
        expect(known, "flavour", self.flavour, wanted)
        typed = needed != (self.precision == "variant")
        wanted = (
            "fp32, fp16, int8 or int8-fp16" if needed else f"'variant': the kind {self.kind!r} runs graphs as they are"
        )
        expect(typed, "precision", self.precision, wanted)
        if self.opset is not None:
            expect(needed, "opset", self.opset, f"none: the kind {self.kind!r} is not TensorRT")
            expect(9 <= self.opset <= 25, "opset", self.opset, "9 to 25")
        if self.workspace_mib is not None:
            expect(1 <= self.workspace_mib <= 65536, "workspace_mib", self.workspace_mib, "1 to 65536 MiB")
        expect(0 <= self.optimization_level <= 5, "optimization_level", self.optimization_level, "0 to 5")
        served = self.kind == "triton" or self.triton == TritonOptions()
        expect(served, "triton", self.triton, f"no such table: the kind {self.kind!r} is no server's")
        self._check_form()
        self._check_devices()

    def _check_form(self) -> None:
        batches = self.kind != "triton" or self.shapes.dynamic
        expect(batches, "shapes.dynamic", self.shapes.dynamic, "true: a server makes batches of the requests it has")
        if self.lstm == "unrolled":
            time = self.shapes.time
            steps = not self.shapes.dynamic and (time is None or time.fixed)
            expect(
                steps, "lstm", self.lstm, "'loop' or 'hoisted': unrolling needs a fixed number of steps (shapes.time)"
            )

    def _check_devices(self) -> None:
        row = self.tensorrt
        known = row.compute_capabilities if row else ()
        for capability in self.compute_capabilities:
            wanted = ", ".join(map(str, known)) if row else f"none: the kind {self.kind!r} builds for no GPU"
            expect(capability in known, "compute_capabilities", capability, f"of {wanted}")
        ahead = not self.compute_capabilities or (row is not None and row.package == "tensorrt_rtx")
        expect(
            ahead, "compute_capabilities", self.compute_capabilities, "none: only TensorRT-RTX builds for other GPUs"
        )
        if self.dla_core is not None:
            has = row is not None and row.dla
            expect(has, "dla_core", self.dla_core, f"none: {row.title if row else self.kind} has no accelerator")
            expect(0 <= self.dla_core <= 1, "dla_core", self.dla_core, "0 or 1")

        for option, possible in (
            ("version_compatible", row is not None and row.version_compatible),
            ("hardware_compatible", row is not None and "AMPERE_PLUS" in row.hardware_levels),
        ):
            asked = getattr(self, option)
            expect(
                possible or not asked, option, asked, f"false: {row.title if row else self.kind} builds no such engine"
            )
        scripted = self.kind != "script" or (row is not None and row.package == "tensorrt")
        expect(scripted, "flavour", self.flavour, "a TensorRT that trtexec builds for: TensorRT-RTX has another tool")

    @property
    def tensorrt(self) -> TensorRtFlavour | None:
        """The row of the TensorRT that builds; None where another engine runs."""
        return FLAVOURS[self.flavour] if self.flavour is not None else None

    @property
    def rewrites(self) -> bool:
        """The graphs are rewritten before the engine's own tools see them; for TensorRT they always are."""
        return self.tensorrt is not None or self.fold or self.float_weights or self.lstm != "loop"

    @property
    def quantized(self) -> bool:
        """The precision asks for signed Q/DQ graphs."""
        return self.precision in _INT8

    @property
    def float16(self) -> bool:
        """The float parts compute in FP16 where range allows."""
        return self.precision in ("fp16", "int8-fp16")


def load_target(name_or_path: str) -> TargetRecipe:
    """A shipped target by name, or a recipe file of one's own by its path.

    Raises:
        InputError: as `load_recipe`; for an unknown name the nearest is named.
    """
    return load_recipe(TargetRecipe, name_or_path, room="export")
