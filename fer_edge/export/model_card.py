"""The model card, drawn from a bundle's manifest and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from fer_edge.core.bundle import Bundle
from fer_edge.core.int8_forms import QAT_SUFFIX
from fer_edge.core.manifest import DataFacts, Manifest
from fer_edge.core.provenance import Provenance, read_provenance

__all__ = ["CARD_FILE", "model_card"]

CARD_FILE: Final = "MODEL_CARD.md"

_LIMITS: Final = (
    "A face's visible expression is not a state of mind, and does not measure drowsiness or distraction.",
    "The sequence head was trained on clips made from stills (moved, relit, blurred, covered by program), not on "
    "filmed expressions.",
)
"""Limits of the method, whatever the data."""

_LAW: Final = """\
Secondary sources; not legal advice. The EU AI Act, Art. 5(1)(f), bans emotion inference at the workplace except for
medical or safety reasons, which likely covers professional drivers; other emotion recognition is high-risk. Regulation
(EU) 2019/2144, Art. 6, requires closed-loop drowsiness and distraction systems: nothing recorded continuously, no
third-party access, immediate deletion. Euro NCAP 2026 scores distraction, drowsiness and impairment, not expressions.
Use the estimates as an auxiliary signal, on the device, with nothing stored."""

_ACCURACY_COLUMNS: Final = (
    "variant", "split", "n", "top-1", "without rows also in training", "macro-F1", "ECE", "encoder + head",
)  # fmt: skip

_CROWD_COLUMNS: Final = (
    "variant", "split", "first choice", "majority", "cross-entropy, bits", "ECE", "faces rejected",
)  # fmt: skip

_PURPOSE: Final = {"training": "Trained on", "initial weights": "Initial weights from", "teacher": "Teacher trained on"}


def model_card(bundle: Bundle) -> str:
    """Write a bundle's model card in Markdown; every figure and fact is the manifest's or the provenance's.

    Raises:
        BundleError: the provenance is damaged.
    """
    manifest, history = bundle.manifest, read_provenance(bundle)
    limits = (*dict.fromkeys(limit for facts in manifest.data for limit in facts.limits), *_LIMITS)
    parts = [
        f"# Model card: {manifest.name}",
        f"{manifest.intended_use}\n\n**Licence of the weights.** {manifest.licence}",
        "## Model",
        _model(manifest),
        "## Data and protocol",
        " ".join(_protocol(manifest, history)),
        "## Accuracy",
        "One crop, no test-time augmentation, T = 1.",
        "\n".join(_table(_ACCURACY_COLUMNS, _accuracy_rows(manifest))),
        "Recall by class:",
        "\n".join(_table(("variant", "split", *manifest.labels), _class_rows(manifest))),
        *_windows(manifest, history),
        *_crowd(manifest),
        "## Limits",
        "\n".join(f"- {limit}" for limit in limits),
        "## Law",
        _LAW,
    ]
    return "\n\n".join(parts) + "\n"


def _model(manifest: Manifest) -> str:
    model, size = manifest.model, manifest.preprocess.size
    return (
        f"{model.get('architecture', 'a network')}, {model.get('parameters', 0):,} parameters, "
        f"{model.get('macs_encoder', 0) / 1e6:.1f} M multiply-accumulates per frame in the encoder and "
        f"{model.get('macs_head', 0) / 1e6:.1f} M per window in the head. Input: one grey face crop of {size}x{size} "
        f"pixels per frame; windows of {manifest.sequence.window} frames at {manifest.sequence.frame_rate:g} per "
        f"second. Output: {', '.join(manifest.labels)}."
    )


def _protocol(manifest: Manifest, history: Provenance) -> Iterator[str]:
    yield from map(_data_sentence, manifest.data)
    if not manifest.data:
        yield "The training data are not stated."
    chosen = next(iter(manifest.variants[0].metrics), "")
    if any(facts.dataset == "fer2013" and facts.used_for == "training" for facts in manifest.data):
        yield (
            "Architecture, epoch, temperature and thresholds were chosen on PublicTest without the rows that also "
            "appear in Training (exact duplicates, 8 % of each test split). PrivateTest is reported with and without "
            "such rows; nothing was chosen on it, and every evaluation on it is logged."
        )
    elif chosen:
        yield f"Epoch, temperature and thresholds were chosen on the split {chosen}."
    for name, record in history.calibration.items():
        sample = record.get("sample", {})
        yield (
            f"{name} was calibrated on {sample.get('size', 0):,} rows of {sample.get('dataset')} {sample.get('split')} "
            "and passed the gate whose figures the manifest holds."
        )
    if names := [variant.name for variant in manifest.variants if variant.name.endswith(QAT_SUFFIX)]:
        yield f"Not judged by the gate yet: {', '.join(names)}."


def _data_sentence(facts: DataFacts) -> str:
    splits = ", ".join(f"{name} {rows:,}" for name, rows in facts.splits.items())
    sha256 = f"sha256 {facts.sha256[:16]}…" if facts.sha256 else ""
    details = "; ".join(filter(None, (splits, sha256, f"licence: {facts.licence}")))
    return f"{_PURPOSE[facts.used_for]} {facts.dataset} ({details})."


def _accuracy_rows(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    for variant in manifest.variants:
        size = sum(file.size_bytes for file in variant.graphs)
        for split, report in variant.metrics.items():
            without = report.top1_without_leaked
            yield (
                variant.name,
                split,
                f"{report.n:,}",
                f"{report.top1:.2%}",
                "–" if without is None else f"{without:.2%} of {report.n_without_leaked:,}",
                f"{report.macro_f1:.2%}",
                f"{report.ece:.4f}",
                f"{size / 1e6:.2f} MB",
            )


def _class_rows(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    for variant in manifest.variants:
        for split, report in variant.metrics.items():
            yield (variant.name, split, *(f"{report.per_class[label]:.1%}" for label in manifest.labels))


def _windows(manifest: Manifest, history: Provenance) -> Iterator[str]:
    windows = history.training.get("top1_by_window")
    if not windows:
        return
    split, report = next(iter(manifest.variants[0].metrics.items()), ("the choosing split", None))
    rows = "" if report is None or report.top1_without_leaked is None else " without leaked rows"
    places = ((*name.rpartition("_")[::2], value) for name, value in windows.items())
    figures = "; ".join(f"{kind.replace('_', ', ')}, T = {steps}: {value:.2%}" for kind, steps, value in places)
    yield f"Top-1 on {split}{rows} by window, FP32 in torch: {figures}."


def _crowd(manifest: Manifest) -> Iterator[str]:
    """Describe the head `crowd` and its agreement with the FER+ votes, where a variant has one."""
    heads = [(variant.name, variant.crowd) for variant in manifest.variants if variant.crowd is not None]
    if not heads:
        return
    yield "## What people see"
    yield (
        "The figures above are of the head `fer2013`, against FER2013's own labels. The head `crowd`, the runtime's "
        "default, learnt the shares of the FER+ votes: the probability of an expression is the share of people who "
        "would say so. Its eighth output is `not judgeable`: votes for unknown and not-a-face, and pictures without a "
        "face to judge. First choice: rows whose column with the most votes is an expression; majority: those where it "
        "has more than half of all votes."
    )
    rows = (
        (
            name,
            split,
            f"{each.first_choice_top1:.2%} of {each.n_first_choice:,}",
            "–" if each.majority_top1 is None else f"{each.majority_top1:.2%} of {each.n_majority:,}",
            f"{each.cross_entropy_bits:.3f}",
            f"{each.ece:.4f}",
            f"{each.not_judgeable.faces:.2%}",
        )
        for name, head in heads
        for split, each in head.metrics.items()
    )
    yield "\n".join(_table(_CROWD_COLUMNS, rows))


def _table(columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (columns, ("---",) * len(columns), *rows):
        yield f"| {' | '.join(row)} |"
