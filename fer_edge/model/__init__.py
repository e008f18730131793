"""The attention CNN-BiLSTM in torch, part by part."""

from __future__ import annotations
