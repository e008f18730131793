"""TensorRT by flavour and version: the one table of what each accepts, so that no code asks for a version by hand.

Sources, by column:

- newest opset: docs/operators.md of onnx-tensorrt (8.5, 8.6: 17; 10.0 to 10.6: 20; 10.15: 24), the ONNX opset guide
  of TensorRT 11 (25). Where a version between two is not documented, the older limit stands;
- builder flags, strong typing: release notes of TensorRT 10.0 (strong typing), 10.12 (weak typing, its flags and the
  calibrators deprecated), 11.0 (removed);
- int64: changelog of onnx-tensorrt, 9.0 (int64 no longer becomes int32); uint8 inputs and outputs all have, since 8.5;
- accelerators: the guide of TensorRT 11.3, by which 10.7 was the last release with DLA;
- compute capabilities: the support matrix of each release; of TensorRT-RTX 1.7.1 those that were built for;
- explicit batch: needed up to 8.6, ignored in 10, gone in 11; progress monitor, names in parser errors: since 9;
  optimization level, version and hardware compatibility: since 8.6, the same-capability level since 10.9;
- just in time: the Python API of TensorRT-RTX 1.7, where timing caches do nothing and which has runtime caches,
  `get_engine_validity` and builds for a list of compute capabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fer_edge.core.errors import InputError

__all__ = ["FLAVOURS", "Package", "TensorRtFlavour", "installed_flavour"]

Package = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True, kw_only=True)
class TensorRtFlavour:
    """One row: a flavour of TensorRT at one version, and what it takes.

    Attributes:
        name: the row's key, ``"10.3"`` or ``"rtx"``.
        package: the Python module that builds and runs.
        version: the first version that the row holds for, (major, minor).
        found_in: where one meets it.
        max_opset: newest ONNX opset that its parser reads.
        precision_flags: the builder has the flags FP16 and INT8, and chooses precisions itself under them.
        strong_typing: a network may be strongly typed: precisions are those of the graph's own tensors and casts.
        int64: int64 inputs stay int64; where false the engine's binding is int32 though the graph says int64.
        compute_capabilities: the GPUs that it builds for, major and minor as one number (``87`` is 8.7).
        fp16_only: the compute capabilities for which it builds no FP32 matrix product.
        dla: it can place layers on a deep learning accelerator.
        explicit_batch: networks must be created with the flag EXPLICIT_BATCH.
        progress_monitor: the builder reports its phases.
        parser_names: the parser's errors carry the node's name and operator, not its number alone.
        optimization_level: the builder can be told how hard to look for kernels.
        version_compatible: engines can be built to load in later versions too.
        hardware_levels: names of the ways to build an engine for more GPUs than the one at hand.
        timing_cache: the builder times kernels, and can be given what it found before.
        just_in_time: kernels are compiled on the machine that runs them: engines are built ahead of time for a list of
            compute capabilities, know whether they are valid on a GPU, and keep a runtime cache.
    """

    name: str
    package: Package = "tensorrt"
    version: tuple[int, int]
    found_in: str
    max_opset: int
    precision_flags: bool
    strong_typing: bool
    int64: bool = True
    compute_capabilities: tuple[int, ...]
    fp16_only: tuple[int, ...] = ()
    dla: bool = True
    explicit_batch: bool = False
    progress_monitor: bool = True
    parser_names: bool = True
    optimization_level: bool = True
    version_compatible: bool = True
    hardware_levels: tuple[str, ...] = ("AMPERE_PLUS",)
    timing_cache: bool = True
    just_in_time: bool = False

    @property
    def title(self) -> str:
        """For messages and tables: ``"TensorRT 10.3"``, ``"TensorRT-RTX 1.7"``."""
        product = "TensorRT-RTX" if self.package == "tensorrt_rtx" else "TensorRT"
        major, minor = self.version
        return f"{product} {major}.{minor}"


_ROWS: Final = (
    TensorRtFlavour(
        name="8.5",
        version=(8, 5),
        found_in="JetPack 5.1",
        max_opset=17,
        precision_flags=True,
        strong_typing=False,
        int64=False,
        compute_capabilities=(50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90),
        explicit_batch=True,
        progress_monitor=False,
        parser_names=False,
        optimization_level=False,
        version_compatible=False,
        hardware_levels=(),
    ),
    TensorRtFlavour(
        name="8.6",
        version=(8, 6),
        found_in="JetPack 6.0",
        max_opset=17,
        precision_flags=True,
        strong_typing=False,
        int64=False,
        compute_capabilities=(50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90),
        explicit_batch=True,
        progress_monitor=False,
        parser_names=False,
    ),
    TensorRtFlavour(
        name="10.3",
        version=(10, 3),
        found_in="JetPack 6.1 and 6.2",
        max_opset=20,
        precision_flags=True,
        strong_typing=True,
        compute_capabilities=(70, 75, 80, 86, 87, 89, 90),
    ),
    TensorRtFlavour(
        name="10.13",
        version=(10, 13),
        found_in="JetPack 7.0 and 7.1",
        max_opset=20,
        precision_flags=True,
        strong_typing=True,
        compute_capabilities=(75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121),
        dla=False,
        hardware_levels=("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    ),
    TensorRtFlavour(
        name="11",
        version=(11, 0),
        found_in="JetPack 7.2 (11.4 from 7.2.2) and desktops",
        max_opset=25,
        precision_flags=False,
        strong_typing=True,
        compute_capabilities=(75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121),
        dla=False,
        hardware_levels=("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    ),
    TensorRtFlavour(
        name="rtx",
        package="tensorrt_rtx",
        version=(1, 7),
        found_in="desktops with an RTX GPU; the wheel tensorrt-rtx",
        max_opset=25,
        precision_flags=False,
        strong_typing=True,
        compute_capabilities=(75, 80, 86, 89, 120, 121),
        fp16_only=(75,),
        dla=False,
        version_compatible=False,
        hardware_levels=(),
        timing_cache=False,
        just_in_time=True,
    ),
)

FLAVOURS: Final[Mapping[str, TensorRtFlavour]] = {row.name: row for row in _ROWS}
"""Every row by name, oldest first, RTX last."""


def installed_flavour(package: Package, version: str) -> TensorRtFlavour:
    """The row that holds for an installed package: the newest that is not newer than it.

    Args:
        package: the module's name.
        version: its ``__version__``, for example ``"10.3.0.26"``.

    Raises:
        InputError: the version is no version, or older than every row.
    """
    numbers = version.split(".")
    if len(numbers) < 2 or not (numbers[0].isdecimal() and numbers[1].isdecimal()):
        raise InputError(f"version of {package}: got {version!r}, expected one such as '10.3.0'")
    found = int(numbers[0]), int(numbers[1])
    rows = [row for row in FLAVOURS.values() if row.package == package]
    fitting = [row for row in rows if row.version <= found]
    if not fitting:
        raise InputError(f"{package} {version} is older than {rows[0].title}, the oldest that is supported")
    return fitting[-1]
