"""Training in torch: loop, losses, augmentation, LDA, distillation, structured pruning."""

from __future__ import annotations
