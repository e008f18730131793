"""Spatial and temporal attention of the driver's face, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_edge.bench.explain.faces import FaceExplanation, entropies, explain_face, face_maps
from fer_edge.core.errors import InputError
from fer_edge.core.json import encode
from fer_edge.core.metrics import softmax
from fer_edge.core.preprocess import check_image, crop_face
from fer_edge.core.types import Float32, Uint8
from fer_edge.runtime.detector import FaceDetector, FaceFinder
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.feature_window import FeatureWindow
from fer_edge.runtime.inference import Network
from fer_edge.runtime.tracker import FaceTracker, prominence

__all__ = ["FrameExplanation", "VideoExplainer", "WindowExplanation", "WindowFace"]


@dataclass(frozen=True, kw_only=True)
class WindowExplanation:
    """Which frames the temporal attention weighed.

    Attributes:
        times_s: when the frame of each real slot of the window was taken, oldest first; the newest is this frame. A
            camera slower than the bundle's frame rate fills several slots with one frame.
        weights: of these slots, of sum 1.
        entropy: of the weights, over that of even ones (0 to 1); None for a window of one frame.
    """

    times_s: tuple[float, ...]
    weights: tuple[float, ...]
    entropy: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowFace:
    """What the encoder saw of one frame: crop uint8 (S, S) grey, attention float32 (G, G)."""

    crop: Uint8
    attention: Float32


@dataclass(frozen=True, kw_only=True)
class FrameExplanation:
    """One frame of a video, or a photograph.

    Attributes:
        index: the frame's number, from 0.
        timestamp_s: when it was taken.
        faces: how many were found in it.
        box_xyxy: the driver's face in pixels; a photograph's driver is its most prominent face.
        face: what the network says of that face and where it looked; None, as the box, where there is no driver's face
            in the frame. In a video its label and probabilities are those of the window, while covering a region is
            tried on the frame by itself.
        window: which frames counted; None in a photograph.
    """

    index: int
    timestamp_s: float
    faces: int
    box_xyxy: BoxXyxy | None
    face: FaceExplanation | None
    window: WindowExplanation | None

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(encode(self))


class VideoExplainer:
    """Follows the faces as `VideoRecognizer` does, and explains the driver's; one thread uses it.

    Attributes:
        window_faces: the faces of the newest window explained, slot by slot, for drawing; of a photograph its one face.

    Args:
        network: stays the caller's to close.
        detector: finds faces; the Haar cascade of OpenCV 4 where none is given.
        occlusion: also cover the face's regions in turn (`face_maps`).

    Raises:
        InputError: the bundle aligns faces by the eyes, which no detector here finds.
    """

    def __init__(self, network: Network, *, detector: FaceDetector | None = None, occlusion: bool = False) -> None:
        if network.manifest.preprocess.alignment == "eyes":
            raise InputError(
                f"the bundle {network.manifest.name!r} aligns faces by the eyes, which no detector here finds; crop "
                "the faces with crop_face(..., eyes=...) and explain the crops as whole frames"
            )
        self._network = network
        self._faces = FaceFinder(detector)
        self._occlusion = occlusion
        self._tracker = FaceTracker()
        self._windows: dict[int, FeatureWindow] = {}
        self._looks: dict[int, dict[float, WindowFace]] = {}
        self._index = 0
        self.window_faces: tuple[WindowFace, ...] = ()

    def process(self, frame: Uint8, *, timestamp_s: float, boxes: Sequence[BoxXyxy] | None = None) -> FrameExplanation:
        """Take the next frame of a video.

        Args:
            frame: uint8 (H, W, 3) BGR or (H, W) grey.
            timestamp_s: when it was taken, in seconds; later than the one before.
            boxes: the faces' boxes where they are known already; the detector then is not asked.

        Raises:
            InputError: another type or shape, or a time not later than the last one.
            SessionError, MissingPackageError: no face detector is to be had, or the engine failed.
        """
        check_image(frame)
        found = self._faces.find(frame, boxes)
        seen = self._tracker.update(found, timestamp_s=timestamp_s, image_size=(frame.shape[1], frame.shape[0]))
        alive = {track.track_id for track in self._tracker.tracks}
        for ended in self._windows.keys() - alive:
            del self._windows[ended], self._looks[ended]
        if not seen:
            return self._result(timestamp_s, 0)
        manifest = self._network.manifest
        crops = np.stack([crop_face(frame, track.box_xyxy, manifest.preprocess) for track in seen])
        maps = face_maps(self._network, crops)
        for place, track in enumerate(seen):
            window = self._windows.setdefault(track.track_id, FeatureWindow(manifest.sequence))
            window.push(maps.features[place], timestamp_s=timestamp_s)
            look = WindowFace(crop=crops[place], attention=maps.attention[place])
            since_s = window.oldest_s or 0.0
            kept = {time_s: old for time_s, old in self._looks.get(track.track_id, {}).items() if time_s >= since_s}
            self._looks[track.track_id] = {**kept, timestamp_s: look}
        driver = next((i for i, track in enumerate(seen) if track.track_id == self._tracker.driver_id), None)
        if driver is None:
            return self._result(timestamp_s, len(found))
        probabilities, weighed = self._weigh(seen[driver].track_id)
        box = seen[driver].box_xyxy
        if self._occlusion:
            maps, driver = face_maps(self._network, crops[driver : driver + 1], occlusion=True), 0
        face = explain_face(maps, driver, manifest.labels, window=probabilities)
        return self._result(timestamp_s, len(found), box, face, weighed)

    def process_still(self, image: Uint8, *, boxes: Sequence[BoxXyxy] | None = None) -> FrameExplanation:
        """Explain the most prominent face of a single photograph.

        Raises:
            InputError: another type or shape.
            SessionError, MissingPackageError: as `process`.
        """
        check_image(image)
        found = self._faces.find(image, boxes)
        size = (image.shape[1], image.shape[0])
        box = max(found, key=lambda each: prominence(each, size), default=None)
        if box is None:
            return self._result(0.0, 0)
        manifest = self._network.manifest
        crop = crop_face(image, box, manifest.preprocess)
        maps = face_maps(self._network, crop[None], occlusion=self._occlusion)
        self.window_faces = (WindowFace(crop=crop, attention=maps.attention[0]),)
        return self._result(0.0, len(found), box, explain_face(maps, 0, manifest.labels))

    def _weigh(self, track_id: int) -> tuple[Float32, WindowExplanation]:
        """Probabilities over the track's window, float32 (C,), and which of its frames counted."""
        view, looks = self._windows[track_id].view(), self._looks[track_id]
        times_s = [float(time_s) for time_s in view.times_s[-view.length :]]
        self.window_faces = tuple(looks[time_s] for time_s in times_s)
        logits, attention = self._network.logits_with_attention(view.features[None], np.array([view.length], np.int64))
        weights = attention[0, -view.length :]
        weighed = WindowExplanation(
            times_s=tuple(times_s),
            weights=tuple(float(weight) for weight in weights),
            entropy=float(entropies(weights[None])[0]) if view.length > 1 else None,
        )
        return softmax(logits, temperature=self._network.variant.temperature)[0], weighed

    def _result(
        self,
        timestamp_s: float,
        faces: int,
        box: BoxXyxy | None = None,
        face: FaceExplanation | None = None,
        window: WindowExplanation | None = None,
    ) -> FrameExplanation:
        self._index += 1
        return FrameExplanation(
            index=self._index - 1, timestamp_s=timestamp_s, faces=faces, box_xyxy=box, face=face, window=window
        )
