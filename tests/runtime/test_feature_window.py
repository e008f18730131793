from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_edge.core.bundle import SequenceSpec
from fer_edge.core.errors import FrameError, InputError
from fer_edge.runtime.feature_window import FeatureWindow

_SPEC = SequenceSpec(window=4, feature_size=1, frame_rate=10.0)


def _feature(value: float) -> np.ndarray:
    return np.array([value], np.float32)


def _after(times_s: list[float], **options: float) -> tuple[list[float], int]:
    """The times of the features in the window after frames at these times, and its length."""
    window = FeatureWindow(_SPEC, **options)
    for time_s in times_s:
        window.push(_feature(time_s), timestamp_s=time_s)
    view = window.view()
    assert view.features.shape == (4, 1)
    assert view.features.dtype == np.float32
    return [round(float(value), 4) for value in view.features[:, 0]], view.length


class TestView:
    def test_one_frame_fills_the_window_and_counts_once(self) -> None:
        assert _after([5.0]) == ([5.0, 5.0, 5.0, 5.0], 1)

    def test_padding_repeats_the_oldest_in_front(self) -> None:
        assert _after([0.0, 0.1, 0.2]) == ([0.0, 0.0, 0.1, 0.2], 3)

    def test_at_the_models_rate_it_is_the_last_frames(self) -> None:
        assert _after([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]) == ([0.2, 0.3, 0.4, 0.5], 4)

    def test_a_faster_camera_is_thinned_backwards_from_the_newest(self) -> None:
        times = [index / 30 for index in range(31)]
        assert _after(times) == ([0.7, 0.8, 0.9, 1.0], 4)
        assert _after(times[:-1]) == ([0.6667, 0.7667, 0.8667, 0.9667], 4)

    def test_an_early_frame_counts_at_once_and_is_let_go(self) -> None:
        assert _after([0.0, 0.1, 0.13]) == ([0.0, 0.0, 0.0, 0.13], 2), "0.13 - 0.1 s lies nearer to 0 than to 0.1"
        assert _after([0.0, 0.1, 0.13, 0.2]) == ([0.0, 0.0, 0.1, 0.2], 3)

    def test_a_slower_camera_is_held(self) -> None:
        assert _after([0.0, 0.2, 0.4]) == ([0.0, 0.2, 0.2, 0.4], 4)

    def test_jitter_changes_nothing(self) -> None:
        assert _after([0.0, 0.11, 0.19, 0.31, 0.4]) == ([0.11, 0.19, 0.31, 0.4], 4)

    def test_a_very_fast_camera_still_spans_the_window(self) -> None:
        times, length = _after([index / 1000 for index in range(2000)])
        assert length == 4
        assert times[-1] == pytest.approx(1.999)
        np.testing.assert_allclose(times, [1.699, 1.799, 1.899, 1.999], atol=0.0126)

    def test_the_largest_gap(self) -> None:
        window = FeatureWindow(_SPEC)
        for time_s in (0.0, 0.1, 0.7):
            window.push(_feature(0), timestamp_s=time_s)
        assert window.view().largest_gap_s == pytest.approx(0.6)


class TestStartingOver:
    def test_after_a_long_pause(self) -> None:
        assert _after([0.0, 0.1, 0.2, 1.3]) == ([1.3] * 4, 1)
        assert _after([0.0, 0.1, 0.2, 1.1])[1] == 4
        assert _after([0.0, 0.1, 0.2, 0.8], max_gap_s=0.5) == ([0.8] * 4, 1)

    def test_when_the_encoder_changes(self) -> None:
        window = FeatureWindow(_SPEC)
        window.push(_feature(1), timestamp_s=0.0, encoder="fp32")
        window.push(_feature(2), timestamp_s=0.1, encoder="int8")
        assert window.view().length == 1
        assert window.view().features[:, 0].tolist() == [2, 2, 2, 2]

    def test_when_cleared(self) -> None:
        window = FeatureWindow(_SPEC)
        window.push(_feature(1), timestamp_s=7.0)
        window.clear()
        assert (len(window), window.newest_s) == (0, None)
        window.push(_feature(2), timestamp_s=1.0)
        assert len(window) == 1


class TestRefusing:
    @pytest.mark.parametrize("time_s", [0.5, float("nan"), float("inf")])
    def test_a_time_that_is_not_later(self, time_s: float) -> None:
        window = FeatureWindow(_SPEC)
        window.push(_feature(1), timestamp_s=1.0)
        with pytest.raises(FrameError, match="timestamp_s"):
            window.push(_feature(2), timestamp_s=time_s)
        assert window.view().features[-1, 0] == 1

    def test_the_time_of_the_newest_replaces_it(self) -> None:
        window = FeatureWindow(_SPEC)
        for number, time_s in enumerate((0.9, 1.0, 1.0)):
            window.push(_feature(number), timestamp_s=time_s)
        assert (len(window), window.view().features[-1, 0]) == (2, 2)
        with pytest.raises(FrameError, match="repeated"):
            window.check_time(1.0)

    def test_an_empty_window_and_another_feature(self) -> None:
        window = FeatureWindow(_SPEC)
        with pytest.raises(InputError, match="got no feature"):
            window.view()
        with pytest.raises(InputError, match="feature: got shape"):
            window.push(np.zeros(2, np.float32), timestamp_s=0.0)

    @pytest.mark.parametrize("max_gap_s", [0, -1, float("nan")])
    def test_a_gap_that_is_none(self, max_gap_s: float) -> None:
        with pytest.raises(InputError, match="max_gap_s"):
            FeatureWindow(_SPEC, max_gap_s=max_gap_s)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(min_value=0.013, max_value=0.9), min_size=1, max_size=120))
def test_every_slot_holds_the_frame_nearest_to_its_time(gaps: list[float]) -> None:
    """Against the definition, with all frames kept: the ring buffer forgets nothing that the window needs."""
    times = np.cumsum(gaps)
    window = FeatureWindow(_SPEC)
    for time_s in times:
        window.push(_feature(time_s), timestamp_s=float(time_s))
    view = window.view()
    due = times[-1] - np.arange(3, -1, -1) * 0.1
    real = due >= times[0] - 0.05
    assert view.length == real.sum()
    for slot in np.flatnonzero(real):
        got = float(view.features[slot, 0])
        best = np.abs(times - due[slot]).min()
        assert abs(got - due[slot]) <= best + 0.0011
    assert (view.features[~real, 0] == view.features[real, 0][0]).all()
