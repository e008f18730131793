"""`fer-edge run` on a camera, as a process under systemd: its reader killed, the camera frozen, ended by a signal."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import tiny_bundle

from fer_edge.cli.systemd import ServiceNotifier
from fer_edge.runtime.health import Health, HealthMonitor, HealthReason
from fer_edge.runtime.inference import NetworkInfo

# A camera of 100 frames a second, in place of OpenCV's, that hangs from the moment at which the file `frozen` exists.
_CAMERA = """
import os, sys, time
import cv2, numpy as np

frozen = sys.argv[1]

class Camera:
    def isOpened(self): return True
    def getBackendName(self): return "FFMPEG"
    def get(self, key): return -1.0 if key == cv2.CAP_PROP_FRAME_COUNT else 0.0
    def read(self):
        time.sleep(60 if os.path.exists(frozen) else 0.01)
        return True, np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    def release(self): pass

read_file = cv2.VideoCapture
cv2.VideoCapture = lambda *place: Camera() if place == (0,) else read_file(*place)
sys.argv = ["fer-edge", *sys.argv[2:]]
from fer_edge.cli import main
main()
"""


class Service:
    """A run on the camera; its records go into a pipe that stays open without a reader, as systemd makes it."""

    def __init__(self, place: Path, *options: str) -> None:
        self.frozen = place / "frozen"
        self.pipe = place / "estimates"
        os.mkfifo(self.pipe)
        self._end = os.open(self.pipe, os.O_RDWR)
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(place / "notify"))
        self.manager.settimeout(30)
        arguments = ["run", str(tiny_bundle(place / "bundle").path), "--source", "0", "--whole-frame", "--json", "-"]
        arguments += options
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{_CAMERA}", self.frozen, *arguments],
            stdout=self._end,
            stderr=subprocess.PIPE,
            env={**os.environ, "NOTIFY_SOCKET": str(place / "notify"), "WATCHDOG_USEC": "300000"},
        )  # fmt: skip

    def wait_for(self, wanted: str) -> str:
        """Return the first notification that contains some text."""
        while wanted not in (said := self.manager.recv(4096).decode()):
            pass
        return said

    def read(self) -> dict[str, object]:
        """Return the next whole record of the pipe, as a reader that has just come sees it."""
        reader = subprocess.run(["head", "-n", "2", self.pipe], capture_output=True, timeout=30, check=True)
        return dict(json.loads(reader.stdout.splitlines()[-1]))

    def close(self) -> None:
        self.process.kill()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process.wait()
        os.close(self._end)
        self.manager.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    with contextlib.ExitStack() as opened:
        yield lambda *options: opened.enter_context(contextlib.closing(Service(tmp_path, *options)))


def test_a_service_from_ready_to_stopping(service: Callable[..., Service], tmp_path: Path) -> None:
    running = service("--annotate", str(tmp_path / "out" / "seen.mp4"))
    running.wait_for("READY=1")
    running.wait_for("STATUS=OK")

    consumer = subprocess.Popen(["cat", running.pipe], stdout=subprocess.DEVNULL)
    time.sleep(0.2)
    consumer.kill()
    consumer.wait()
    assert running.read()["record"] in ("run", "frame"), "another reader gets whole lines"
    time.sleep(1.5)  # nobody reads: the pipe fills up, and recognition goes on
    assert "WATCHDOG=1" in running.wait_for("STATUS=OK")

    running.frozen.touch()
    failed = running.wait_for("STATUS=FAILED: no usable frame for 2 s")
    assert "WATCHDOG=1" in failed, "a camera that is silent is no reason to restart"

    began_s = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    stderr = running.process.communicate(timeout=20)[1].decode()
    assert time.monotonic() - began_s < 2, "half a second on an idle machine"
    assert running.process.returncode == 0, stderr
    running.wait_for("STOPPING=1")
    assert "state: FAILED: no usable frame for 2 s" in stderr
    assert sorted(os.listdir(tmp_path / "out")) == ["seen.mp4"], "the video is whole and no scratch file is left"


def test_a_frame_that_hangs_is_no_sign_of_life(tmp_path: Path) -> None:
    reasons: list[HealthReason] = []
    clock = HealthMonitor(clock=lambda: 0.0)
    info = NetworkInfo(bundle="", sha256="", variant="", precision="", provider="", provider_version="", threads=1)

    def health() -> Health:
        return dataclasses.replace(clock.health(dropped=0, lost=0, load_level=0, info=info), reasons=tuple(reasons))

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        with ServiceNotifier(str(tmp_path / "notify"), watchdog_s=0.03) as service:
            service.watch(health)
            while "WATCHDOG=1" not in manager.recv(4096).decode():
                pass
            reasons.append(HealthReason(name="worker", state="FAILED", because="it hangs", since_s=0.0))
            while "it hangs" not in manager.recv(4096).decode():
                pass
            assert "WATCHDOG" not in manager.recv(4096).decode()
    with ServiceNotifier("") as service:  # nothing listens
        service.watch(health)
