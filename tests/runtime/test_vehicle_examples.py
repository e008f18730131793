"""The examples of runtime/examples/ that connect to a vehicle, run against a virtual bus and a local broker."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from scripts import ROOT, load_script

from fer_edge.data.faces import synthetic_frames
from fer_edge.runtime.estimate import UNKNOWN

_FRAMES = 12

pytestmark = pytest.mark.skipif(
    not (ROOT / "runtime" / "examples").is_dir(), reason="runtime/ is not part of the source distribution"
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A drawn driver, whom the cascade finds; in place of a camera."""
    path = str(tmp_path_factory.mktemp("clip") / "driver.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, (480, 360))
    for frame in synthetic_frames(("happy",), frames=_FRAMES, frame_rate=10.0, seed=0, size=(480, 360)):
        writer.write(frame.image)
    writer.release()
    return path


def test_asyncio(clip: str) -> None:
    script = ROOT / "runtime" / "examples" / "embed_asyncio.py"
    done = subprocess.run(
        [sys.executable, script, "--bundle", "nano", "--source", clip], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *estimates, last = done.stdout.splitlines()
    assert last == f"{len(estimates)} estimates of a driver"
    assert len(estimates) >= _FRAMES - 4


def test_can(clip: str) -> None:
    """Every message of a stream has the next counter and its checksum; damaged bytes show in it."""
    can = pytest.importorskip("can")
    example = load_script("runtime/examples/embed_can.py")
    with can.Bus(interface="virtual", channel="test") as receiver:
        example.main(["--bundle", "nano", "--source", clip, "--interface", "virtual", "--channel", "test"])
        messages = []
        while (message := receiver.recv(timeout=0.1)) is not None:
            messages.append(message)
    counters, decoded = defaultdict(list), []
    for message in messages:
        assert example.checksum(message.arbitration_id, message.data) == message.data[0]
        signals = example.DATABASE.decode_message(message.arbitration_id, message.data)
        counters[message.arbitration_id, signals.get("TrackId")].append(signals["Counter"])
        decoded.append((message.arbitration_id, signals))
    assert all(seen == [number % 15 for number in range(len(seen))] for seen in counters.values())
    assert sum(identifier == 1297 for identifier, _ in decoded) >= _FRAMES
    faces = [signals for identifier, signals in decoded if identifier == 1296]
    assert len(faces) >= _FRAMES - 2
    assert {str(signals["State"]) for signals in faces} <= {"OK", "DEGRADED"}
    assert all(signals["Age"] < 2550 and 0 <= signals["Probability"] <= 100 for signals in faces)
    damaged = bytearray(messages[0].data)
    damaged[3] ^= 1
    assert example.checksum(messages[0].arbitration_id, damaged) != damaged[0]
    assert example.checksum(0x3231, b"\0" + b"3456789") == 0x4B, "the check value of CRC-8 SAE J1850, over 123456789"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """The port of a mosquitto of this test."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("needs mosquitto: apt-get install mosquitto")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", tmp_path / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port
    process.terminate()
    process.wait(10)


def test_mqtt(clip: str, broker: int) -> None:
    mqtt = pytest.importorskip("paho.mqtt.client")
    example = load_script("runtime/examples/embed_mqtt.py")
    got: dict[str, list[dict[str, Any]]] = defaultdict(list)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = lambda client, data, message: got[message.topic].append(json.loads(message.payload))
    client.connect("127.0.0.1", broker)
    client.subscribe("vehicle/#")
    client.loop_start()
    example.main(["--bundle", "nano", "--source", clip, "--host", "127.0.0.1", "--port", str(broker)])
    ends_s = time.monotonic() + 5
    while not (got["vehicle/expression/state"] and got["vehicle/expression/state"][-1]["state"] == "FAILED"):
        assert time.monotonic() < ends_s
        time.sleep(0.02)
    client.disconnect()
    client.loop_stop()
    assert [each["state"] for each in got["vehicle/expression/state"]] == ["OK", "FAILED"]
    faces = got["vehicle/expression/face/1"]
    assert len(faces) >= _FRAMES - 2
    assert all(each["label"] in (*each["probabilities"], UNKNOWN) for each in faces)


def test_the_ros_node_is_marked_as_not_run_and_compiles() -> None:
    path = ROOT / "runtime" / "examples" / "ros2_node.py"
    text = path.read_text("utf-8")
    compile(text, str(path), "exec")
    assert "Not run" in text.splitlines()[0]
