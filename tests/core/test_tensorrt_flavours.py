from __future__ import annotations

import pytest

from fer_edge.core.errors import InputError
from fer_edge.core.tensorrt_flavours import FLAVOURS, installed_flavour, runs_engines_of


@pytest.mark.parametrize(
    ("package", "version", "row"),
    [
        ("tensorrt", "8.5.2.2", "8.5"),
        ("tensorrt", "8.6.1", "8.6"),
        ("tensorrt", "10.3.0.26", "10.3"),
        ("tensorrt", "10.9.0.34", "10.3"),
        ("tensorrt", "10.14.1", "10.13"),
        ("tensorrt", "11.4.0.106", "11"),
        ("tensorrt", "11.4.1.12", "11.4.1"),
        ("tensorrt", "11.5.0", "11.4.1"),
        ("tensorrt_rtx", "1.7.1.116", "rtx"),
    ],
)
def test_an_installed_version_is_held_to_the_newest_row_that_is_not_newer(package: str, version: str, row: str) -> None:
    assert installed_flavour(package, version).name == row  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "words"),
    [("7.2.3", "older than TensorRT 8.5, the oldest"), ("ten", "got 'ten', expected one such as"), ("10", "got '10'")],
)
def test_what_no_row_holds_for_is_refused(version: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        installed_flavour("tensorrt", version)


def test_a_builder_takes_precisions_by_flags_or_from_the_graph() -> None:
    assert all(row.precision_flags or row.strong_typing for row in FLAVOURS.values())
    assert [row.name for row in FLAVOURS.values() if not row.precision_flags] == ["11", "11.4.1", "rtx"]


def test_compute_capabilities_are_in_order() -> None:
    for row in FLAVOURS.values():
        assert set(row.fp16_only) <= set(row.compute_capabilities)
        assert list(row.compute_capabilities) == sorted(row.compute_capabilities)


def test_an_accelerator_is_in_the_rows_that_nvidia_names() -> None:
    assert [row.name for row in FLAVOURS.values() if row.dla] == ["8.5", "8.6", "10.3", "11.4.1"]


@pytest.mark.parametrize(
    ("built", "installed", "runs"),
    [
        ((10, 3), (10, 13), True),
        ((10, 13), (10, 3), False),
        ((10, 3), (11, 4, 1), True),
        ((8, 6), (10, 3), True),
        ((8, 6), (11, 4, 1), False),
        ((11, 4, 1), (11, 4, 0), False),
    ],
)
def test_version_compatible_engines_cross_one_major_version(
    built: tuple[int, ...], installed: tuple[int, ...], runs: bool
) -> None:
    assert runs_engines_of(installed, built) == runs
