"""The state of a live recogniser: OK, DEGRADED or FAILED, why and since when, with counters and latency."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fer_edge.core.json import encode
from fer_edge.runtime.estimate import State
from fer_edge.runtime.inference import NetworkInfo

__all__ = ["Health", "HealthMonitor", "HealthReason"]

_LATENCIES_KEPT: Final = 1024
_OUTCOMES_KEPT: Final = 30
_BAD_SHARE: Final = 0.2  # of the last frames; more bad ones degrade the recogniser
_ORDER: Final[tuple[State, ...]] = ("OK", "DEGRADED", "FAILED")


@dataclass(frozen=True, kw_only=True)
class HealthReason:
    """One reason why a recogniser is not OK.

    Attributes:
        name: ``"starting"``, ``"stalled"``, ``"source"``, ``"frames"``, ``"load"``, ``"recognition"``, ``"engine"``
            (another provider took over), ``"callback"`` or ``"worker"`` (a frame has been in work for too long).
        state: DEGRADED or FAILED.
        because: the reason in words.
        since_s: when it began, in the recogniser's clock.
    """

    name: str
    state: State
    because: str
    since_s: float


@dataclass(frozen=True, kw_only=True)
class Health:
    """The state of a live recogniser at one moment.

    Attributes:
        state: the worst of the reasons' states, OK without one.
        since_s: when this state began, in the recogniser's clock.
        reasons: why it is not OK, worst first.
        pushed: frames given to `push`.
        dropped: frames replaced by a newer one before they were processed.
        skipped: frames that could not be used, by reason.
        processed: frames with a result.
        lost: results removed because the consumer did not take them.
        reopened: how often the source was opened again.
        latency_ms: ``p50`` and ``p99`` of the last 1,024 frames from `push` to the result, and ``max`` of all.
        load_level: measures of the deadline policy in force: 0 for none (`DeadlinePolicy`).
        info: the network that runs.

    Example:
        >>> from fer_edge.runtime import LiveRecognizer
        >>> with LiveRecognizer("nano") as live:
        ...     health = live.health()
        >>> health.state, health.reasons[0].name, health.pushed
        ('DEGRADED', 'starting', 0)
    """

    state: State
    since_s: float
    reasons: tuple[HealthReason, ...]
    pushed: int
    dropped: int
    skipped: Mapping[str, int]
    processed: int
    lost: int
    reopened: int
    latency_ms: Mapping[str, float]
    load_level: int
    info: NetworkInfo

    @property
    def because(self) -> str | None:
        """The reasons in one line; None where OK."""
        return "; ".join(reason.because for reason in self.reasons) or None

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(encode(self))


@dataclass(kw_only=True)
class HealthMonitor:
    """Collects counters and reasons from several threads.

    Args:
        clock: gives the times of reasons, in seconds.
    """

    clock: Callable[[], float]
    pushed: int = 0
    processed: int = 0
    reopened: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    _reasons: dict[str, HealthReason] = field(default_factory=dict)
    _latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))
    _outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=_OUTCOMES_KEPT))
    _max_ms: float = 0.0
    _state: State = "OK"
    _since_s: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._since_s = self.clock()

    @property
    def state(self) -> State:
        """The worst state of the reasons."""
        return self._state

    @property
    def because(self) -> str | None:
        """The reasons in one line; None where OK."""
        return "; ".join(reason.because for reason in self._sorted()) or None

    def set(self, name: str, because: str | None, *, state: State = "FAILED") -> bool:
        """Give a reason, or remove it where None; return whether the state of the whole changed."""
        with self._lock:
            old = self._reasons.get(name)
            if because is None:
                self._reasons.pop(name, None)
            else:
                since_s = old.since_s if old is not None and old.state == state else self.clock()
                self._reasons[name] = HealthReason(name=name, state=state, because=because, since_s=since_s)
            states: list[State] = [reason.state for reason in self._reasons.values()]
            before, self._state = self._state, max(states, key=_ORDER.index, default="OK")
            if self._state != before:
                self._since_s = self.clock()
            return self._state != before

    def count_push(self) -> None:
        """Count a frame that was given."""
        with self._lock:
            self.pushed += 1

    def count_skip(self, reason: str, detail: str) -> None:
        """Count a frame that cannot be used."""
        with self._lock:
            self.skipped[reason] += 1
            self._note(False, f"the last frame was skipped: {detail}")

    def count_result(self, latency_ms: float) -> None:
        """Count a frame with a result."""
        with self._lock:
            self.processed += 1
            self._latency_ms.append(latency_ms)
            self._max_ms = max(self._max_ms, latency_ms)
            self._note(True, "")

    def health(self, *, dropped: int, lost: int, load_level: int, info: NetworkInfo) -> Health:
        """Return everything at this moment."""
        with self._lock:
            latency_ms = {"max": self._max_ms}
            if self._latency_ms:
                p50, p99 = np.percentile(self._latency_ms, (50, 99))
                latency_ms |= {"p50": float(p50), "p99": float(p99)}
            return Health(
                state=self._state,
                since_s=self._since_s,
                reasons=self._sorted(),
                pushed=self.pushed,
                dropped=dropped,
                skipped=dict(self.skipped),
                processed=self.processed,
                lost=lost,
                reopened=self.reopened,
                latency_ms=latency_ms,
                load_level=load_level,
                info=info,
            )

    def _note(self, usable: bool, detail: str) -> None:
        self._outcomes.append(usable)
        bad = self._outcomes.count(False)
        if bad > _BAD_SHARE * _OUTCOMES_KEPT:
            because = f"{bad} of the last {len(self._outcomes)} frames were skipped"
            self.set("frames", f"{because}; {detail}" if detail else because, state="DEGRADED")
        else:
            self.set("frames", None)

    def _sorted(self) -> tuple[HealthReason, ...]:
        with self._lock:
            reasons = list(self._reasons.values())
        return tuple(sorted(reasons, key=lambda reason: (-_ORDER.index(reason.state), reason.since_s)))
