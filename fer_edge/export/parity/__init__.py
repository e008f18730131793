"""Parity: torch, ONNX, INT8 and every engine compared stage by stage."""

from __future__ import annotations
