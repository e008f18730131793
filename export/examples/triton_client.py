"""One camera's faces to a Triton server, a frame a request; the server keeps the window.

    pip install 'fer-edge[cpu]' 'tritonclient[grpc]'
    fer-edge export base --target triton --out base-triton
    docker run --rm --gpus all -p 8001:8001 -v "$PWD/base-triton/models:/models" \\
        nvcr.io/nvidia/tritonserver:25.08-py3 tritonserver --model-repository=/models
    python triton_client.py --bundle base --source 0
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc as triton

from fer_edge import Bundle
from fer_edge.demo.drawn_source import open_any_source
from fer_edge.runtime import FaceFinder, cut_face, prepare_face

PAUSE_S = 1.0  # after a longer one the server has forgotten the stream (max_sequence_idle_microseconds)


def faces(bundle: Bundle, source: str) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield the time and the prepared face, uint8 (S, S), of the largest face, at the bundle's frame rate."""
    spec, period_s = bundle.manifest.preprocess, 1 / bundle.manifest.sequence.frame_rate
    finder, due_s = FaceFinder(), -np.inf
    with open_any_source(source) as frames:
        for frame in frames:
            if frame.timestamp_s < due_s:
                continue
            found = finder.find(frame.image, frame.boxes)
            if not found.boxes:
                continue
            largest = max(found.boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
            # The next one is due a period after this one was due, not after it came, or the rate would drop.
            late = frame.timestamp_s - due_s > period_s
            due_s = (frame.timestamp_s if late else due_s) + period_s
            crop = cut_face(found.image, found.geometry.apply(largest), spec)
            yield frame.timestamp_s, prepare_face(crop, spec)


def main() -> None:
    """Print the expression of every frame sent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="base")
    parser.add_argument("--source", default="synthetic", help="as fer-edge run takes it")
    parser.add_argument("--url", default="localhost:8001")
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    manifest, model = bundle.manifest, f"{bundle.manifest.name}_recognizer"
    client = triton.InferenceServerClient(options.url)
    outputs = [triton.InferRequestedOutput(name) for name in ("probabilities", "next_length")]
    stream, last_s = 0, -np.inf
    for time_s, face in faces(bundle, options.source):
        begins = time_s - last_s > PAUSE_S
        if begins:
            stream = random.getrandbits(63) | 1  # a correlation id of this stream's own, never 0
        frames = triton.InferInput("frames", [1, *face.shape], "UINT8")
        frames.set_data_from_numpy(face[None])
        reply = client.infer(model, [frames], outputs=outputs, sequence_id=stream, sequence_start=begins)
        last_s = time_s
        row, length = reply.as_numpy("probabilities")[0], int(reply.as_numpy("next_length")[0, 0])
        best = int(row.argmax())
        fill = f"{length}/{manifest.sequence.window}"
        print(f"{time_s:8.2f} s  {manifest.labels[best]:<9} {row[best]:4.0%}  window {fill}")


if __name__ == "__main__":
    main()
