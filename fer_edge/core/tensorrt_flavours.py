"""The capabilities of each TensorRT flavour and version: one table instead of version checks in code.

Sources, by column:

- newest opset: docs/operators.md of onnx-tensorrt (8.5, 8.6: 17; 10.0 to 10.6: 20; 10.15: 24), the ONNX opset guide
  of TensorRT 11 (25). For undocumented versions in between, the older limit applies;
- builder flags, strong typing: release notes of TensorRT 10.0 (strong typing), 10.12 (weak typing, its flags and the
  calibrators deprecated), 11.0 (removed);
- int64: changelog of onnx-tensorrt, 9.0 (int64 no longer becomes int32); uint8 inputs and outputs since 8.5;
- JetPack: release notes and migration guide of TensorRT 11.4.1: 11.2 to 11.4.0 do not support JetPack; 11.4.1 supports
  JetPack 7.2.2 and later on AGX Orin and Thor, by the package for SBSA;
- accelerators: the guide "Working with DLA" of TensorRT 11.4.1: 10.7 was the last 10.x with DLA; 11.4.1 has it again on
  AGX Orin, with JetPack 7.2.2 or later and strongly typed networks;
- version-compatible engines (`runs_engines_of`): the support matrix of TensorRT 11.4.1;
- compute capabilities: the support matrix of each release; for TensorRT-RTX 1.7.1, those that an engine was built for;
- explicit batch: needed up to 8.6, ignored in 10, gone in 11; progress monitor, names in parser errors: since 9;
- just in time: the Python API of TensorRT-RTX 1.7, where timing caches do nothing and which has runtime caches,
  `get_engine_validity` and builds for a list of compute capabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from fer_edge.core.errors import InputError

__all__ = ["FLAVOURS", "Package", "TensorRtFlavour", "installed_flavour", "runs_engines_of"]

Package = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True, kw_only=True)
class TensorRtFlavour:
    """One row: a flavour of TensorRT, a first version, and its capabilities.

    Attributes:
        name: the row's key, ``"10.3"`` or ``"rtx"``.
        package: the Python module that builds and runs.
        version: the first version of the row, (major, minor) or (major, minor, patch).
        serves: other rows whose targets this version builds and runs too.
        found_in: the JetPack or platform with it.
        max_opset: newest ONNX opset of its parser.
        precision_flags: the builder has the flags FP16 and INT8 and chooses precisions.
        strong_typing: networks may be strongly typed, with the precisions of the graph's tensors and casts.
        int64: int64 inputs stay int64; otherwise the engine's binding is int32.
        compute_capabilities: supported GPUs, major and minor as one number (``87`` is 8.7).
        fp16_only: compute capabilities without an FP32 matrix product.
        dla: layers may run on a deep learning accelerator.
        explicit_batch: networks must be created with the flag EXPLICIT_BATCH.
        progress_monitor: the builder reports its phases.
        parser_names: the parser's errors have the node's name and operator, not only its number.
        timing_cache: the builder times kernels and accepts a timing cache.
        just_in_time: kernels are compiled on the target: engines are built ahead of time for a list of compute
            capabilities, can be checked for validity on a GPU, and have a runtime cache.
    """

    name: str
    package: Package = "tensorrt"
    version: tuple[int, ...]
    found_in: str
    serves: tuple[str, ...] = ()
    max_opset: int
    precision_flags: bool = True
    strong_typing: bool = True
    int64: bool = True
    compute_capabilities: tuple[int, ...]
    fp16_only: tuple[int, ...] = ()
    dla: bool = True
    explicit_batch: bool = False
    progress_monitor: bool = True
    parser_names: bool = True
    timing_cache: bool = True
    just_in_time: bool = False

    @property
    def title(self) -> str:
        """The product and version: ``"TensorRT 10.3"``, ``"TensorRT-RTX 1.7"``."""
        product = "TensorRT-RTX" if self.package == "tensorrt_rtx" else "TensorRT"
        return f"{product} {'.'.join(map(str, self.version))}"


_OLD_GPUS: Final = (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90)
_NEW_GPUS: Final = (75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121)

_JETPACK5: Final = TensorRtFlavour(
    name="8.5",
    version=(8, 5),
    found_in="JetPack 5.1",
    max_opset=17,
    strong_typing=False,
    int64=False,
    compute_capabilities=_OLD_GPUS,
    explicit_batch=True,
    progress_monitor=False,
    parser_names=False,
)
_ORIN: Final = TensorRtFlavour(
    name="10.3",
    version=(10, 3),
    found_in="JetPack 6.1 and 6.2",
    max_opset=20,
    compute_capabilities=(70, 75, 80, 86, 87, 89, 90),
)
_THOR: Final = replace(
    _ORIN,
    name="10.13",
    version=(10, 13),
    found_in="JetPack 7.0 and 7.1",
    compute_capabilities=_NEW_GPUS,
    dla=False,
)
_NEWEST: Final = replace(
    _THOR,
    name="11",
    version=(11, 0),
    found_in="desktops and servers",
    max_opset=25,
    precision_flags=False,
)
_JETPACK7: Final = replace(
    _NEWEST,
    name="11.4.1",
    version=(11, 4, 1),
    found_in="JetPack 7.2.2 and later on AGX Orin and Thor; desktops and servers",
    serves=("11",),
    dla=True,
)
_RTX: Final = replace(
    _NEWEST,
    name="rtx",
    package="tensorrt_rtx",
    version=(1, 7),
    found_in="desktops with an RTX GPU; the wheel tensorrt-rtx",
    compute_capabilities=(75, 80, 86, 89, 120, 121),
    fp16_only=(75,),
    timing_cache=False,
    just_in_time=True,
)
_ROWS: Final = (
    _JETPACK5, replace(_JETPACK5, name="8.6", version=(8, 6), found_in="JetPack 6.0"), _ORIN, _THOR, _NEWEST,
    _JETPACK7, _RTX,
)  # fmt: skip

FLAVOURS: Final[Mapping[str, TensorRtFlavour]] = {row.name: row for row in _ROWS}
"""Every row by name, oldest first, RTX last."""


def installed_flavour(package: Package, version: str) -> TensorRtFlavour:
    """Return the row of an installed package: the newest row that is not newer.

    Args:
        package: the module's name.
        version: its ``__version__``, for example ``"10.3.0.26"``.

    Raises:
        InputError: an invalid version, or one older than every row.
    """
    numbers = version.split(".")[:3]
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        raise InputError(f"version of {package}: got {version!r}, expected one such as '10.3.0'")
    found = tuple(map(int, numbers))
    rows = [row for row in FLAVOURS.values() if row.package == package]
    fitting = [row for row in rows if row.version <= found]
    if not fitting:
        raise InputError(f"{package} {version} is older than {rows[0].title}, the oldest that is supported")
    return fitting[-1]


def runs_engines_of(installed: tuple[int, ...], built: tuple[int, ...]) -> bool:
    """Return whether a TensorRT runs a version-compatible engine of another one.

    Later versions of the same major version do, TensorRT 10 those of 8, and 11 those of 10; no other pair.
    """
    return installed >= built and (built[0], installed[0]) in {(built[0], built[0]), (8, 10), (10, 11)}
