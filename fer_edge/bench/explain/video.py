"""Spatial and temporal attention of the driver's face, frame by frame: an observer of `VideoRecognizer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fer_edge.bench.explain.faces import FaceExplanation, FaceMaps, entropies, explain_face, face_maps, square_maps
from fer_edge.core.errors import SessionError
from fer_edge.core.json_report import JsonReport
from fer_edge.core.preprocess import prepare_face
from fer_edge.core.types import Float32, Uint8
from fer_edge.runtime.detector import FaceDetector
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.face_finder import cut_tilted
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.streaming import StreamOutputs
from fer_edge.runtime.tracker import FaceTrack, prominence
from fer_edge.runtime.video_recognizer import VideoRecognizer

__all__ = ["FrameExplanation", "VideoExplainer", "WindowExplanation", "WindowFace"]


@dataclass(frozen=True, kw_only=True)
class WindowExplanation:
    """Weights of the window's frames in the temporal attention.

    Attributes:
        times_s: capture time of the frame in each real slot of the window, oldest first; the newest is this frame. A
            camera slower than the bundle's frame rate fills several slots with one frame.
        weights: weight of each slot, of sum 1.
        entropy: entropy of the weights over that of even ones (0 to 1); None for a window of one frame.
    """

    times_s: tuple[float, ...]
    weights: tuple[float, ...]
    entropy: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowFace:
    """The encoder's input and attention of one frame: crop uint8 (S, S) grey, attention float32 (G, G)."""

    crop: Uint8
    attention: Float32


@dataclass(frozen=True, kw_only=True)
class FrameExplanation(JsonReport):
    """One frame of a video, or a photograph.

    Attributes:
        index: the frame's number, from 0.
        timestamp_s: capture time of the frame.
        faces: number of faces recognised in it; of faces found, in a photograph.
        box_xyxy: the driver's face in pixels; a photograph's driver is its most prominent face.
        face: label, probabilities and attention of that face; None, as the box, where the driver's face is not in the
            frame. In a video label and probabilities are the window's, and occlusion is tried on the frame alone.
        window: weights of the window's frames; None in a photograph.
    """

    index: int
    timestamp_s: float
    faces: int
    box_xyxy: BoxXyxy | None
    face: FaceExplanation | None
    window: WindowExplanation | None


class VideoExplainer:
    """Explains the driver's face of a `VideoRecognizer`; use it from one thread at a time.

    Attributes:
        window_faces: the faces of the newest window explained, slot by slot, for drawing; a photograph's one face.

    Args:
        recognizer: stays open; the caller closes it.
        detector: finds faces; `HaarDetector` where None.
        occlusion: also cover the face's regions in turn (`face_maps`).

    Raises:
        InputError: the bundle aligns faces by the eyes, which the detector does not find.
    """

    def __init__(
        self, recognizer: Recognizer, *, detector: FaceDetector | None = None, occlusion: bool = False
    ) -> None:
        self._recognizer = recognizer
        self._video = VideoRecognizer(recognizer, detector=detector, observer=self._observe)
        self._occlusion = occlusion
        sequence = recognizer.manifest.sequence
        self._span_s = sequence.window / sequence.frame_rate
        self._history: dict[int, dict[float, WindowFace]] = {}
        self._observed: list[tuple[dict[int, int], StreamOutputs]] = []  # track id -> row of the outputs
        self._index = 0
        self.window_faces: tuple[WindowFace, ...] = ()

    def process(self, frame: Uint8, *, timestamp_s: float, boxes: Sequence[BoxXyxy] | None = None) -> FrameExplanation:
        """Explain the next frame of a video.

        Args:
            frame: uint8 (H, W, 3) BGR or (H, W) grey.
            timestamp_s: capture time of the frame, in seconds; later than the previous one.
            boxes: the faces' boxes where they are known; the detector is then not run.

        Raises:
            FrameError: another type or shape, or a time not later than the last one.
            SessionError, MissingPackageError: no face detector is available, or the engine failed.
        """
        self._observed.clear()
        result = self._video.process(frame, timestamp_s=timestamp_s, boxes=boxes)
        alive = {estimate.track_id for estimate in result.estimates}
        self._history = {track: kept for track, kept in self._history.items() if track in alive}
        driver = result.driver
        if driver is not None and driver.state == "FAILED":
            raise SessionError(f"the driver's face could not be explained: {driver.state_because}")
        if not self._observed:
            return self._result(timestamp_s, 0)
        [(rows, outputs)] = self._observed
        if driver is None or driver.track_id not in rows:
            return self._result(timestamp_s, len(rows))
        row = rows[driver.track_id]
        face, window = self._explain(outputs, row), self._window(driver.track_id, outputs, row)
        return self._result(timestamp_s, len(rows), driver.box_xyxy, face, window)

    def process_still(self, image: Uint8, *, boxes: Sequence[BoxXyxy] | None = None) -> FrameExplanation:
        """Explain the most prominent face of a single photograph.

        Raises:
            FrameError: another type or shape.
            SessionError, MissingPackageError: as `process`.
        """
        found = self._video.find(image, boxes=boxes)
        face = max(found.faces, key=lambda each: prominence(each.box_xyxy, found.size), default=None)
        if face is None:
            return self._result(0.0, 0)
        network, spec = self._recognizer.network, self._recognizer.manifest.preprocess
        crop = prepare_face(cut_tilted(found.image, face, found.geometry, spec), spec)
        maps = face_maps(network, crop[None], occlusion=self._occlusion)
        self.window_faces = (WindowFace(crop=crop, attention=maps.attention[0]),)
        return self._result(0.0, len(found.faces), face.box_xyxy, explain_face(maps, 0, network.outputs))

    def _observe(self, tracks: Sequence[FaceTrack], outputs: StreamOutputs) -> None:
        attention = square_maps(outputs.region_attention)
        rows = {track.track_id: row for row, track in enumerate(tracks)}
        self._observed.append((rows, outputs))
        for track_id, row in rows.items():
            times_s = outputs.views[row].times_s
            # A filling window may repeat a newer frame in slots that a later view gives to an older one.
            oldest_s = min(times_s[0], times_s[-1] - self._span_s)
            kept = {at_s: face for at_s, face in self._history.get(track_id, {}).items() if at_s >= oldest_s}
            face = WindowFace(crop=outputs.faces[row], attention=attention[row])
            self._history[track_id] = {**kept, float(times_s[-1]): face}

    def _explain(self, outputs: StreamOutputs, row: int) -> FaceExplanation:
        probabilities = outputs.probabilities[row]
        if self._occlusion:
            maps = face_maps(self._recognizer.network, outputs.faces[row : row + 1], occlusion=True)
        else:
            attention = square_maps(outputs.region_attention[row : row + 1])
            maps = FaceMaps(probabilities=probabilities[None], attention=attention, occlusion_drop=None)
        return explain_face(maps, 0, self._recognizer.network.outputs, window=probabilities)

    def _window(self, track_id: int, outputs: StreamOutputs, row: int) -> WindowExplanation:
        view = outputs.views[row]
        times_s = [float(time_s) for time_s in view.times_s[-view.length :]]
        self.window_faces = tuple(self._history[track_id][time_s] for time_s in times_s)
        weights = outputs.frame_attention[row, -view.length :]
        return WindowExplanation(
            times_s=tuple(times_s),
            weights=tuple(float(weight) for weight in weights),
            entropy=float(entropies(weights[None])[0]) if view.length > 1 else None,
        )

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
