"""What an engine that fails costs: it is opened again once, then the next provider takes over and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import WINDOW, tiny_bundle, tiny_frames

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError, SessionError
from fer_edge.runtime import network_switch
from fer_edge.runtime.inference import Network
from fer_edge.runtime.recognizer import Recognizer


class Engine:
    """Opens the CPU's network under any provider's name, and lets some of its runs fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.closed_doors: set[str] = set()  # providers that cannot be opened
        self.broken: set[int] = set()  # networks by their number that fail at every run
        self._networks: dict[int, Network] = {}
        open_real, encode = Network.open, Network.encode_with_attention

        def opened(bundle: Bundle, *, provider: str, **options: object) -> Network:
            if provider in self.closed_doors:
                raise SessionError(f"no {provider} here")
            network = open_real(bundle, **options)  # type: ignore[arg-type]
            self._networks[id(network)] = network
            self.opened.append(provider)
            return network

        def encoded(network: Network, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if id(network) in self._networks and list(self._networks).index(id(network)) in self.broken:
                raise SessionError("it fell off the bus")
            return encode(network, frames)

        monkeypatch.setattr(Network, "open", opened)
        monkeypatch.setattr(Network, "encode_with_attention", encoded)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


@pytest.fixture
def recognizer(tmp_path: Path, engine: Engine) -> Iterator[Recognizer]:
    with Recognizer(tiny_bundle(tmp_path / "bundle"), provider=("cuda", "cpu"), quality=None) as opened:
        yield opened


def test_once_is_rebuilt_and_nothing_is_lost(recognizer: Recognizer, engine: Engine) -> None:
    stream, frames = recognizer.stream(), tiny_frames(WINDOW)
    for index in range(WINDOW - 1):
        stream.update(frames[index], timestamp_s=index / 10)
    engine.broken = {0}
    estimate = stream.update(frames[-1], timestamp_s=(WINDOW - 1) / 10)
    assert (estimate.state, estimate.window_fill, engine.opened) == ("OK", 1.0, ["cuda", "cuda"])
    assert recognizer.fallback_because is None


def test_again_and_the_next_provider_takes_over(recognizer: Recognizer, engine: Engine) -> None:
    stream, frames = recognizer.stream(), tiny_frames(3)
    engine.broken = {0, 1}
    for index in range(3):
        estimate = stream.update(frames[index], timestamp_s=index / 10)
        assert estimate.probabilities
        assert (estimate.state, estimate.window_fill) == ("DEGRADED", (index + 1) / WINDOW)
        assert "because cuda failed: it fell off the bus" in (estimate.state_because or "")
    assert engine.opened == ["cuda", "cuda", "cpu"]
    assert recognizer.recognize(frames[0]).state == "DEGRADED"


def test_with_none_left_it_fails_and_is_tried_again(
    recognizer: Recognizer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, frames = recognizer.stream(), tiny_frames(4)
    engine.broken = {0, 1, 2}
    states = [stream.update(frames[index], timestamp_s=index / 10).state for index in range(3)]
    assert (states, len(engine.opened)) == (["FAILED"] * 3, 3)
    with pytest.raises(SessionError, match="fell off the bus"):
        recognizer.recognize(frames[0])
    monkeypatch.setattr(network_switch, "_PROBATION_S", 0.0)
    assert stream.update(frames[3], timestamp_s=0.3).state == "DEGRADED"
    assert engine.opened[-1] == "cpu"


def test_a_provider_that_cannot_be_opened_is_passed_over(tmp_path: Path, engine: Engine) -> None:
    engine.closed_doors = {"cuda"}
    bundle = tiny_bundle(tmp_path / "bundle")
    with Recognizer(bundle, provider=("cuda", "cpu"), quality=None) as recognizer:
        estimate = recognizer.recognize(tiny_frames(1)[0])
    assert estimate.state == "DEGRADED"
    assert "cuda cannot be opened: no cuda here" in (estimate.state_because or "")
    with pytest.raises(SessionError, match="no cuda here"):
        Recognizer(bundle, provider="cuda")
    with pytest.raises(InputError, match="provider: got"):
        Recognizer(bundle, provider=("cpu", "tpu"))
