"""Nothing leaves a live run: no file is written, no socket is opened, by Python or by the libraries below it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny import tiny_bundle

# The audit hook sees every file and socket that Python opens. What libraries write is seen by the kernel: with a file
# size limit of 0 a process is ended at the first byte that it writes into a file.
_RUN = """
import json, os, resource, signal, sys, threading
import numpy as np

seen, watching = [], False

def audit(event, arguments):
    if not watching:
        return
    writes = event == "open" and (set(str(arguments[1] or "")) & set("wax+") or (arguments[2] or 0) & 0o1103)
    others = ("socket.", "subprocess.", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.fork", "tempfile.")
    if writes or event.startswith(others):
        seen.append([event, threading.current_thread().name, [str(each) for each in arguments]])

sys.addaudithook(audit)
from fer_edge.runtime import LiveOptions, LiveRecognizer, TrackerOptions

watching = True
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
results, faces = [], np.random.default_rng(0).integers(0, 256, (60, 120, 160, 3), dtype=np.uint8)
options = LiveOptions(
    every_frame=True, tracking=TrackerOptions(passengers=True), keep_warm_s=0.01, stall_after_s=0.1
)
live = LiveRecognizer(sys.argv[1], detector="haar", on_estimate=results.append, options=options)
for index, frame in enumerate(faces):
    boxes = [(10, 10, 60, 60), (80, 20, 140, 80)] if index % 2 else None
    live.push(frame, index / 30, boxes=boxes)
    if index == 30:
        live.push(np.zeros(3), 0.0)
        live.health().to_json()
live.finish()
for thread in live._threads:
    thread.join(30)
live.close()
open(os.devnull, "w").close()  # which the hook must see
print(json.dumps({"seen": seen, "results": len(results)}))
"""


def test_a_live_run_writes_no_file_and_opens_no_socket(tmp_path: Path) -> None:
    bundle, home = tiny_bundle(tmp_path / "bundle").path, tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{_RUN}", bundle],
        capture_output=True, text=True, timeout=120, cwd=home,
        env={**os.environ, "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [event[2][0] for event in told["seen"]] == [os.devnull]
    assert told["results"] >= 60
    assert os.listdir(home) == []
