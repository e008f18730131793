"""The demonstration: the shipped bundles verified, exported, measured and run on drawn faces."""

from __future__ import annotations
