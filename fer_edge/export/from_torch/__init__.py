"""What this room makes of networks in torch: the only part of it that needs torch."""

from __future__ import annotations
