"""The head `crowd` of a float variant and its INT8 forms on the rows of the accuracy gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fer_edge.calibrate.gate import GateRows
from fer_edge.core.accuracy import CrowdAccuracy
from fer_edge.core.crowd import crowd_accuracy, first_choice, vote_shares
from fer_edge.core.evaluate import StillOutputs
from fer_edge.core.manifest import CrowdHead
from fer_edge.core.metrics import PairedReport, fit_temperature, paired_report, softmax
from fer_edge.core.types import Array, Float32
from fer_edge.runtime.session import Session

__all__ = ["CrowdLogits", "crowd_logits", "crowd_pairs"]

_BATCH: Final = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class CrowdLogits:
    """Logits of one head `crowd` on the gate's rows, before temperature.

    Attributes:
        by_window: window T -> float32 (N, 8) on the choosing split, each still repeated T times.
        outside: float32 (M, 8) at T = 1 on the training rows outside the sample.
        temperature: fitted to the shares of the votes at T = 1 on the choosing split without leaked rows; the head's
            own where the data has no votes.
        accuracy: on the choosing split at T = 1, with that temperature; None where the data has no votes.
    """

    by_window: Mapping[int, Float32]
    outside: Float32
    temperature: float
    accuracy: CrowdAccuracy | None

    def measured(self, head: CrowdHead, *, split: str) -> CrowdHead:
        """Return a head's entry for the manifest with this temperature and accuracy."""
        metrics = head.metrics if self.accuracy is None else {**head.metrics, split: self.accuracy}
        return dataclasses.replace(head, temperature=self.temperature, metrics=metrics)


def crowd_logits(
    session: Session, head: CrowdHead, rows: GateRows, *, choosing: StillOutputs, outside: StillOutputs
) -> CrowdLogits:
    """Run a head on features of the gate's rows.

    Args:
        session: the head's graph, opened.
        head: its entry in the manifest: the temperature without votes, and the threshold of `not judgeable`.
        rows: the gate's rows.
        choosing: the encoder's outputs for the choosing split, with the windows to compare at.
        outside: the same for the training rows outside the sample.

    Raises:
        SessionError: the engine failed.
    """
    by_window = {window: _run(session, choosing.features, window) for window in choosing.by_window}
    temperature, accuracy = head.temperature, None
    if rows.votes is not None:
        shares = vote_shares(rows.votes)
        judged = ~rows.leaked & (shares.sum(axis=1) > 0)
        if judged.any():
            temperature = fit_temperature(by_window[1][judged], shares[judged])
        if (first_choice(rows.votes) >= 0).any():
            probabilities = softmax(by_window[1], temperature=temperature)
            accuracy = crowd_accuracy(probabilities, rows.votes, threshold=head.not_judgeable_threshold)
    return CrowdLogits(
        by_window=by_window,
        outside=_run(session, outside.features, 1),
        temperature=temperature,
        accuracy=accuracy,
    )


def crowd_pairs(
    before: CrowdLogits, after: CrowdLogits, rows: GateRows
) -> tuple[dict[int, PairedReport], PairedReport]:
    """Compare two heads: on the choosing split without leaked rows by window, and on the rows outside the sample.

    The choosing split's labels are the first choices of the votes, on the rows where these are expressions; without
    votes they are the data set's.
    """
    labels = rows.labels if rows.votes is None else first_choice(rows.votes)
    kept = ~rows.leaked & (labels >= 0)
    if not kept.any():
        labels, kept = rows.labels, ~rows.leaked

    def paired(old: Float32, new: Float32, truth: Array) -> PairedReport:
        return paired_report(
            softmax(old, temperature=before.temperature), softmax(new, temperature=after.temperature), truth
        )

    choosing = {
        window: paired(old[kept], after.by_window[window][kept], labels[kept])
        for window, old in before.by_window.items()
    }
    return choosing, paired(before.outside, after.outside, rows.outside.stills.labels)


def _run(session: Session, features: Float32, window: int) -> Float32:
    found = []
    for start in range(0, len(features), _BATCH):
        part = features[start : start + _BATCH]
        feeds: dict[str, Array] = {
            "features": np.repeat(part[:, None, :], window, axis=1),
            "length": np.full(len(part), window, np.int64),
        }
        found.append(session.run(feeds)["logits"])
    return np.concatenate(found)
