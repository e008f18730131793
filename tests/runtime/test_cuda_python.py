"""cuda-python itself under the runtime, on a driver in host memory: its argument types, and who frees what."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")

pytestmark = [
    pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="needs cuda-python"),
    pytest.mark.skipif(not COMPILER or sys.platform != "linux", reason="needs a C compiler on Linux"),
]

# The driver is found by the loader's path, which only a new process takes; NVRTC would compile the kernel where it is
# installed, and any image that looks like machine code will do here.
_SCRIPT = """
import ctypes, json
import numpy as np
import kernel_engine
from fer_edge.runtime.device_session import open_device
from fer_edge.core.errors import SessionError

kernel_engine.compile_kernel = lambda capability: (b"\\x7fELF for SM%d" % capability, "nvrtc 0.0")
library, counts = ctypes.CDLL("libcuda.so.1"), (ctypes.c_int * 7)()

def left():
    library.left_behind(counts)
    return dict(zip(("memory", "retained", "streams", "graphs", "modules", "depth", "launches"), counts))

device = open_device()
said = {"name": device.info.name, "capability": device.info.compute_capability, "package": device.info.package}
try:
    device.allocate(16)
except SessionError as error:
    said["outside"] = str(error)
device.close()
for mapped in (False, True):
    with kernel_engine.open_kernel_session(mapped=mapped) as session:
        for rows in (1, 1, 1, 64, 64, 64, 3):
            x = np.random.default_rng(rows).normal(size=(rows, 1024)).astype(np.float32)
            assert np.array_equal(session.run({"x": x})["y"], 2 * x + 1)
        said[f"mapped {mapped}"] = session.cuda_graph
said["used"] = left()
for _ in range(1000):
    with kernel_engine.open_kernel_session() as session:
        session.run({"x": x})
said["left"] = left()
print(json.dumps(said))
"""


def test_sessions_run_and_leave_nothing(tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "cuda_driver.c"
    library = tmp_path / "libcuda.so.1"
    command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["name"], said["capability"]) == ("C driver", 86)
    assert said["package"].startswith("cuda-python ")
    assert "INVALID_CONTEXT" in said["outside"]
    assert said["mapped False"] == said["mapped True"] == "captured"
    assert said["used"]["launches"] == 8  # of seven runs a shape's second and third, twice
    nothing = dict.fromkeys(("memory", "retained", "streams", "graphs", "modules", "depth"), 0)
    assert said["left"] == {**nothing, "launches": said["used"]["launches"]}
