"""The shipped bundles at work on one machine: verified, exported, measured and run, on made-up faces."""

from __future__ import annotations
