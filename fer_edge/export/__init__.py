"""From a training run to a bundle, and from a bundle to what a target runs."""

from __future__ import annotations
