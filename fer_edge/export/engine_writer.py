"""Writes engines with their sidecars, and reads the layers that TensorRT's engine inspector reports."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_edge.core.errors import SessionError
from fer_edge.core.files import write_atomic, write_json, writing
from fer_edge.core.json import encode
from fer_edge.runtime.engine_files import ENGINE_ENDING, EngineFile, EngineLayer, EngineSidecar, sidecar_path

__all__ = ["engine_name", "gpu_slug", "read_layers", "write_engine", "write_sidecar"]


def gpu_slug(gpu: str | None, compute_capabilities: Sequence[int]) -> str:
    """Return a GPU's part of a file name: ``"nvidia-geforce-rtx-4090"``, or ``"sm80-86-89"`` built ahead of time."""
    if gpu is None:
        return f"sm{'-'.join(map(str, compute_capabilities))}"
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") or "gpu"


def engine_name(graph_sha256: str, gpu: str, library: str, precision: str) -> str:
    """Return the name of an engine's file; `library` is package and version: ``"tensorrt-10.3.0"``."""
    return f"{graph_sha256}-{gpu}-{library.replace('_', '-')}-{precision}{ENGINE_ENDING}"


def write_engine(folder: Path, plan: bytes, sidecar: EngineSidecar) -> EngineFile:
    """Write an engine, then its sidecar, so that an engine without one is incomplete.

    Raises:
        OutputError: the folder cannot be written.
    """
    gpu, library = gpu_slug(sidecar.gpu, sidecar.compute_capabilities), f"{sidecar.package}-{sidecar.version}"
    path = folder / engine_name(sidecar.graph_sha256, gpu, library, sidecar.precision)
    with writing(path):
        sidecar_path(path).unlink(missing_ok=True)
    write_atomic(path, plan)
    return write_sidecar(path, sidecar)


def write_sidecar(path: Path, sidecar: EngineSidecar) -> EngineFile:
    """Write or replace the sidecar of an engine.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_json(sidecar_path(path), encode(sidecar))
    return EngineFile(path=path, sidecar=sidecar)


def read_layers(text: str) -> tuple[EngineLayer, ...]:
    """Parse the engine inspector's JSON, in which layers are names or objects, depending on the build.

    Raises:
        SessionError: no JSON, or no layers in it.
    """
    try:
        listed = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise SessionError(f"the engine inspector's answer cannot be read: {error!r}") from error
    return tuple(
        EngineLayer(name=layer)
        if isinstance(layer, str)
        else EngineLayer(name=layer.get("Name", ""), kind=layer.get("LayerType", ""), format=_format(layer))
        for layer in listed
    )


def _format(layer: Mapping[str, Any]) -> str:
    """Return the format of a layer's outputs: one key up to TensorRT 10, two since 11."""
    outputs = layer.get("Outputs", ())
    formats = [
        output.get("Format/Datatype") or f"{output.get('DataType', '')} {output.get('Format', '')}"
        for output in outputs
    ]
    return ", ".join(part.strip() for part in formats)
