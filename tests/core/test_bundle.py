from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_bundle, tiny_crowd_bundle, tiny_encoder, tiny_head, tiny_manifest, tiny_variant

import fer_edge.core.bundle
import fer_edge.core.bundle_writer
from fer_edge.core.bundle import Bundle, Manifest, timestamp, zoo_names
from fer_edge.core.bundle_writer import create_bundle, update_bundle
from fer_edge.core.errors import BundleError, InputError, OutputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.manifest import FileEntry
from fer_edge.core.metrics import AccuracyReport
from fer_edge.core.provenance import Provenance, read_provenance
from fer_edge.core.verify import verify_bundle

_HEAD = ("variants", 0, "heads", "fer2013")
_OPTIMISED = tiny_encoder(seed=7).SerializeToString()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle")


def _with_int8(bundle: Bundle) -> tuple[Manifest, dict[str, bytes]]:
    """The bundle's manifest with a second variant, and the one graph new to it."""
    head = bundle.graph_bytes("fp32", "head")
    variant = tiny_variant("int8", _OPTIMISED, head, parent="fp32")
    return bundle.manifest.with_variant(variant), {sha256_bytes(_OPTIMISED): _OPTIMISED}


def _edit(bundle: Bundle, *keys: str | int, value: Any) -> None:
    """Change one field of the manifest on disk."""
    path = bundle.path / "manifest.json"
    manifest = json.loads(path.read_text())
    place = manifest
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(manifest))


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestRoundTrip:
    def test_opened_as_created(self, bundle: Bundle) -> None:
        opened = Bundle.open(bundle.path)
        assert opened == bundle
        assert opened.sha256 == sha256_bytes((bundle.path / "manifest.json").read_bytes())
        assert opened.graph_bytes("fp32", "encoder") == tiny_encoder().SerializeToString()
        assert opened.graph_bytes("fp32", "head") == tiny_head().SerializeToString()

    def test_everything_in_the_manifest_comes_back(self, tmp_path: Path) -> None:
        report = AccuracyReport(
            dataset="synthetic", split="test", n=7, top1=0.5, macro_precision=0.5, macro_recall=0.5, macro_f1=0.5,
            per_class={"happy": 1.0}, ece=0.1, top1_without_leaked=0.4, n_without_leaked=6,
        )  # fmt: skip
        bundle = tiny_bundle(
            tmp_path / "bundle",
            temperature=1.5,
            unknown_threshold=0.4,
            metrics={"PublicTest": report},
            parity={"max_abs": 1e-6},
            how_made={"method": "export", "versions": {"torch": "2.13"}},
        )
        assert Bundle.open(bundle.path).manifest == bundle.manifest
        assert Bundle.open(bundle.path).variant("fp32").metrics["PublicTest"] == report

    def test_the_same_content_gives_the_same_bytes(self, tmp_path: Path) -> None:
        assert tiny_bundle(tmp_path / "a").sha256 == tiny_bundle(tmp_path / "b").sha256

    def test_timestamp_is_one_that_a_manifest_takes(self, bundle: Bundle) -> None:
        dataclasses.replace(bundle.manifest, created=timestamp())

    def test_unknown_variant_lists_those_there_are(self, bundle: Bundle) -> None:
        with pytest.raises(BundleError, match="no variant 'int8'; it has fp32"):
            bundle.graph_bytes("int8", "encoder")


class TestLocating:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="which does not exist"):
            Bundle.open(tmp_path / "nothing")

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "graph.onnx").write_bytes(b"x")
        with pytest.raises(BundleError, match="is a file, expected a bundle"):
            Bundle.open(tmp_path / "graph.onnx")

    def test_a_folder_without_a_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"no manifest\.json"):
            Bundle.open(tmp_path)

    def test_a_bare_name_is_looked_up_in_the_zoo(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shipped = tiny_bundle(tmp_path / "zoo" / "edge")
        monkeypatch.setattr(fer_edge.core.bundle, "_ZOO", tmp_path / "zoo")
        monkeypatch.chdir(tmp_path)
        assert zoo_names() == ("edge",)
        assert Bundle.open("edge") == shipped
        with pytest.raises(BundleError, match=r"got 'egde'.*or one of edge"):
            Bundle.open("egde")
        with pytest.raises(BundleError, match="which does not exist"):
            Bundle.open("./edge")

    def test_a_folder_goes_before_the_zoo(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tiny_bundle(tmp_path / "zoo" / "edge")
        own = tiny_bundle(tmp_path / "edge", temperature=2.0)
        monkeypatch.setattr(fer_edge.core.bundle, "_ZOO", tmp_path / "zoo")
        monkeypatch.chdir(tmp_path)
        assert Bundle.open("edge").sha256 == own.sha256


class TestDamage:
    def test_one_flipped_byte(self, bundle: Bundle) -> None:
        path = bundle.path / "graphs" / f"{bundle.variant('fp32').encoder.sha256}.onnx"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        opened = Bundle.open(bundle.path)
        with pytest.raises(BundleError, match=r"sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}"):
            opened.graph_bytes("fp32", "encoder")
        assert opened.graph_bytes("fp32", "head")

    def test_truncated_graph(self, bundle: Bundle) -> None:
        file = bundle.variant("fp32").head
        path = bundle.path / "graphs" / f"{file.sha256}.onnx"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(BundleError, match=f"got {file.size_bytes - 1} bytes, expected {file.size_bytes}"):
            Bundle.open(bundle.path)

    def test_missing_graph(self, bundle: Bundle) -> None:
        (bundle.path / "graphs" / f"{bundle.variant('fp32').head.sha256}.onnx").unlink()
        with pytest.raises(BundleError, match=r"No such file.*manifest\.json names it"):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "..", "a" * 63, "A" * 64, "a" * 64 + "\n"])
    def test_a_name_that_is_no_hash_cannot_point_outside(self, bundle: Bundle, name: str) -> None:
        _edit(bundle, "variants", 0, "encoder", "sha256", value=name)
        with pytest.raises(BundleError, match=r"variants\[0\]\.encoder\.sha256: got .*, expected 64 lower-case hex"):
            Bundle.open(bundle.path)

    def test_a_link_cannot_point_outside(self, bundle: Bundle, tmp_path: Path) -> None:
        path = bundle.path / "graphs" / f"{bundle.variant('fp32').encoder.sha256}.onnx"
        path.rename(tmp_path / "elsewhere.onnx")
        path.symlink_to(tmp_path / "elsewhere.onnx")
        with pytest.raises(BundleError, match="outside the bundle"):
            Bundle.open(bundle.path)

    def test_only_regular_files_are_read(self, bundle: Bundle) -> None:
        path = bundle.path / "manifest.json"
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(BundleError, match="expected a regular file"):
            Bundle.open(bundle.path)

    def test_a_linked_bundle_is_a_bundle(self, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(bundle.path)
        assert Bundle.open(tmp_path / "link").graph_bytes("fp32", "head")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not valid JSON"),
            ("{", "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            ("[]", "schema: missing"),
            ('{"name": "x"}', "schema: missing"),
            ('{"schema": 3}', "schema: got 3, expected 2; a newer schema needs a newer fer-edge"),
            ('{"schema": 1}', "schema: got 1, expected 2; export and calibrate the bundle again"),
            ('{"schema": true}', "schema: got True, expected 2"),
            ('{"schema": "2"}', "schema: got '2', expected 2"),
            ('{"schema": 2}', "name: missing"),
            ('{"schema": 2, "schema": 2}', "the key 'schema' appears twice"),
            ('{"schema": 2, "model": {"x": NaN}}', "NaN is not a JSON number"),
            (" " * ((1 << 20) + 1), "got 1048577 bytes, expected at most 1048576"),
        ],
    )
    def test_a_manifest_that_is_none(self, bundle: Bundle, text: str, message: str) -> None:
        (bundle.path / "manifest.json").write_text(text)
        with pytest.raises(BundleError, match=rf"manifest\.json: .*{message}"):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize(
        ("keys", "value", "message"),
        [
            (["name"], 3, "name: got 3, expected text"),
            (["name"], "../x", "name: got '../x', expected letters"),
            (["created"], "yesterday", "created: got 'yesterday', expected an ISO 8601 time"),
            (["labels"], ["a", "a"], "labels: got"),
            (["lables"], [], "lables: unknown field; did you mean 'labels'"),
            (["licence"], " ", "licence: got"),
            (["preprocess", "size"], 3, "preprocess.size: got 3, expected"),
            (["preprocess", "median"], 4, "preprocess.median: got 4, expected one of 0, 3, 5"),
            (["preprocess", "median"], 3.0, "preprocess.median: got 3.0, expected one of 0, 3, 5"),
            (["preprocess", "margin"], 10**400, "preprocess.margin: got .*, expected a finite number"),
            (["sequence", "window"], 0, "sequence.window: got 0, expected 1 to 1024"),
            (["sequence", "window"], 4.5, "sequence.window: got 4.5, expected a whole number"),
            (["sequence", "window"], True, "sequence.window: got True, expected a whole number"),
            (["sequence", "frame_rate"], -1, "sequence.frame_rate: got -1"),
            (["variants"], [], "variants: got \\[\\], expected at least one"),
            (["variants"], {}, "variants: got {}, expected a list"),
            (["variants", 0, "name"], "auto", r"variants\[0\]\.name: got 'auto'"),
            (["variants", 0, "parent"], "fp16", r"variants\[0\]\.parent: got 'fp16', expected null or one of fp32"),
            (["variants", 0, "parent"], "fp32", r"variants\[0\]\.parent: got 'fp32', expected another"),
            ([*_HEAD, "temperature"], 0, r"variants\[0\]\.temperature: got 0"),
            ([*_HEAD, "temperature"], 1e-40, r"variants\[0\]\.temperature: got 1e-40, expected 0\.01 to 100"),
            (
                ["variants", 0, "heads", "fer2013", "unknown_threshold"],
                1.5,
                r"variants\[0\]\.unknown_threshold: got 1.5",
            ),
            (["variants", 0, "encoder", "size_bytes"], 0, r"variants\[0\]\.encoder\.size_bytes: got 0"),
            (
                ["variants", 0, "heads", "fer2013", "metrics"],
                {"t": {"n": 1}},
                r"variants\[0\]\.metrics\.t",
            ),
            (["variants", 0, "heads", "second"], None, r"variants\[0\]\.heads: got .*, expected a head 'fer2013'"),
            (["variants", 0, "heads"], {}, r"variants\[0\]\.heads: got \{\}, expected a head 'fer2013'"),
            (["data"], [{"dataset": "x", "rows": 3}], r"data\[0\]\.rows: unknown field"),
            (["provenance"], {"sha256": "0" * 64, "size_bytes": 0}, "provenance.size_bytes: got 0"),
        ],
    )
    def test_a_bad_field_is_named(self, bundle: Bundle, keys: list[str | int], value: Any, message: str) -> None:
        _edit(bundle, *keys, value=value)
        with pytest.raises(BundleError, match=rf"manifest\.json: {message}"):
            Bundle.open(bundle.path)


class TestProvenance:
    HISTORY = Provenance(training={"recipe": {"seed": 1}}, calibration={"int8": {"sample": 3}})

    @pytest.fixture
    def with_history(self, bundle: Bundle) -> Bundle:
        return update_bundle(bundle, bundle.manifest, provenance=self.HISTORY)

    def test_it_is_read_back_and_named_by_hash(self, with_history: Bundle) -> None:
        data = (with_history.path / "provenance.json").read_bytes()
        assert read_provenance(Bundle.open(with_history.path)) == self.HISTORY
        assert with_history.manifest.provenance == FileEntry(sha256=sha256_bytes(data), size_bytes=len(data))

    def test_a_bundle_without_history_has_an_empty_one(self, bundle: Bundle) -> None:
        assert bundle.manifest.provenance is None
        assert read_provenance(bundle) == Provenance()

    def test_an_update_keeps_it_unless_it_is_given(self, with_history: Bundle) -> None:
        renamed = update_bundle(with_history, dataclasses.replace(with_history.manifest, name="new", provenance=None))
        assert read_provenance(renamed) == self.HISTORY
        later = update_bundle(renamed, renamed.manifest, provenance=Provenance(training={"recipe": {}}))
        assert read_provenance(Bundle.open(later.path)).training == {"recipe": {}}
        assert {path.name for path in later.path.iterdir()} == {"manifest.json", "provenance.json", "graphs"}

    def test_a_changed_file_is_refused(self, with_history: Bundle) -> None:
        path = with_history.path / "provenance.json"
        path.write_bytes(path.read_bytes().replace(b'"seed": 1', b'"seed": 2'))
        with pytest.raises(BundleError, match=r"provenance\.json: the content's sha256 is"):
            read_provenance(with_history)

    @pytest.mark.parametrize("killed_at", ["manifest.json", "provenance.json"])
    def test_a_kill_leaves_the_old_or_the_new_history(
        self, with_history: Bundle, killed_at: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed before the commit the old history holds; killed after it, before the rename, the new one."""
        new = Provenance(training={"recipe": {"seed": 2}})
        write, replace = fer_edge.core.bundle_writer.write_atomic, os.replace

        def no_manifest(path: Path, data: bytes) -> None:
            if path.name == killed_at == "manifest.json":
                os._exit(9)
            write(path, data)

        def no_rename(source: Path, target: Path) -> None:
            if Path(target).name == killed_at == "provenance.json":
                os._exit(9)
            replace(source, target)

        child = os.fork()
        if child == 0:
            monkeypatch.setattr(fer_edge.core.bundle_writer, "write_atomic", no_manifest)
            monkeypatch.setattr(fer_edge.core.bundle_writer.os, "replace", no_rename)
            update_bundle(with_history, with_history.manifest, provenance=new)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        opened = Bundle.open(with_history.path)
        assert read_provenance(opened) == (self.HISTORY if killed_at == "manifest.json" else new)
        assert verify_bundle(opened.path).ok
        again = update_bundle(opened, dataclasses.replace(opened.manifest, name="later"))
        assert read_provenance(again) == read_provenance(opened)
        assert {path.name for path in again.path.iterdir()} == {"manifest.json", "provenance.json", "graphs"}


def test_extensions_are_free_and_kept(bundle: Bundle) -> None:
    _edit(bundle, "extensions", value={"later": {"anything": [1, "x", None]}})
    opened = Bundle.open(bundle.path)
    assert opened.manifest.extensions == {"later": {"anything": [1, "x", None]}}
    assert update_bundle(opened, dataclasses.replace(opened.manifest, name="new")).manifest.extensions["later"]


@pytest.mark.parametrize("name", zoo_names())
def test_a_shipped_manifest_is_small(name: str) -> None:
    bundle = Bundle.open(name)
    assert (bundle.path / "manifest.json").stat().st_size < 48_000
    assert read_provenance(bundle).training["recipe"]
    assert [facts.dataset for facts in bundle.manifest.data] == ["fer2013"]


class TestCreate:
    def test_an_existing_folder_is_kept(self, bundle: Bundle) -> None:
        before = _content(bundle.path)
        with pytest.raises(OutputError, match="already holds files"):
            tiny_bundle(bundle.path)
        assert _content(bundle.path) == before

    def test_overwrite_replaces_a_bundle_and_nothing_else(self, bundle: Bundle, tmp_path: Path) -> None:
        graphs = {file.sha256: bundle.read_graph(file) for file in bundle.variant("fp32").graphs}
        manifest = dataclasses.replace(bundle.manifest, name="other")
        assert create_bundle(bundle.path, manifest, graphs, overwrite=True) == Bundle.open(bundle.path)
        assert Bundle.open(bundle.path).manifest.name == "other"
        home = tmp_path / "home"
        home.mkdir()
        (home / "thesis.txt").write_text("x")
        with pytest.raises(OutputError, match="holds files but no bundle"):
            create_bundle(home, manifest, graphs, overwrite=True)
        assert (home / "thesis.txt").exists()

    def test_graphs_and_manifest_belong_together(self, bundle: Bundle, tmp_path: Path) -> None:
        graphs = {file.sha256: bundle.read_graph(file) for file in bundle.variant("fp32").graphs}
        first, second = graphs
        cases = [
            ({first: graphs[first]}, f"{second} is missing"),
            ({**graphs, "0" * 64: b"x"}, "which no variant of the manifest names"),
            ({**graphs, first: b"x"}, "its content's sha256 is"),
        ]
        for given, message in cases:
            with pytest.raises(InputError, match=message):
                create_bundle(tmp_path / "new", bundle.manifest, given)
        assert not (tmp_path / "new").exists()

    def test_what_json_cannot_hold_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be written as JSON"):
            tiny_bundle(tmp_path / "new", parity={"max_abs": float("nan")})
        assert not (tmp_path / "new").exists()


class TestUpdate:
    def test_adds_a_variant(self, bundle: Bundle) -> None:
        updated = update_bundle(bundle, *_with_int8(bundle))
        assert updated == Bundle.open(bundle.path)
        assert updated.graph_bytes("int8", "encoder") == _OPTIMISED
        assert updated.graph_bytes("int8", "head") == bundle.graph_bytes("fp32", "head")

    def test_drops_graphs_that_are_no_longer_named(self, bundle: Bundle) -> None:
        updated = update_bundle(bundle, *_with_int8(bundle))
        assert len(list((bundle.path / "graphs").iterdir())) == 3
        update_bundle(updated, bundle.manifest)
        assert len(list((bundle.path / "graphs").iterdir())) == 2
        assert verify_bundle(bundle.path).ok

    def test_refuses_a_graph_that_is_not_given(self, bundle: Bundle) -> None:
        before = _content(bundle.path)
        with pytest.raises(InputError, match="is missing, but the manifest names it"):
            update_bundle(bundle, _with_int8(bundle)[0])
        assert _content(bundle.path) == before

    def test_refuses_when_the_bundle_changed_meanwhile(self, bundle: Bundle) -> None:
        stale = Bundle.open(bundle.path)
        update_bundle(bundle, *_with_int8(bundle))
        with pytest.raises(BundleError, match="was changed since it was opened"):
            update_bundle(stale, dataclasses.replace(stale.manifest, name="late"))
        assert Bundle.open(bundle.path).variant("int8")

    def test_two_writers_do_not_mix(self, bundle: Bundle) -> None:
        """Of many simultaneous updates exactly one wins; the bundle stays whole."""
        outcomes: list[str] = []
        start = threading.Barrier(8)

        def update(number: int) -> None:
            start.wait()
            try:
                update_bundle(bundle, dataclasses.replace(bundle.manifest, name=f"writer-{number}"))
                outcomes.append(f"writer-{number}")
            except BundleError:
                outcomes.append("refused")

        threads = [threading.Thread(target=update, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [outcome for outcome in outcomes if outcome != "refused"]
        assert len(outcomes) == 8
        assert winners == [Bundle.open(bundle.path).manifest.name]

    def test_a_damaged_graph_is_mended_by_giving_it_again(self, bundle: Bundle) -> None:
        head = bundle.graph_bytes("fp32", "head")
        path = bundle.path / "graphs" / f"{sha256_bytes(head)}.onnx"
        path.write_bytes(b"\0" * len(head))
        update_bundle(bundle, bundle.manifest, {sha256_bytes(head): head})
        assert Bundle.open(bundle.path).graph_bytes("fp32", "head") == head


_CHILD = """
import os, resource, signal, sys
from pathlib import Path
import tiny
import fer_edge.core.bundle_writer as writer
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError
from fer_edge.core.files import sha256_bytes

how, path = sys.argv[1], Path(sys.argv[2])
bundle = Bundle.open(path)
big = tiny.tiny_encoder(seed=7)
big.doc_string = "x" * 100_000
encoder = big.SerializeToString()
manifest = bundle.manifest.with_variant(
    tiny.tiny_variant("int8", encoder, bundle.graph_bytes("fp32", "head"), parent="fp32")
)
write = writer.write_atomic

def stopping(path, data):
    if path.name == "manifest.json":
        os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGINT)
    write(path, data)

# A shell that starts this in the background has SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
if how in ("kill", "interrupt"):
    writer.write_atomic = stopping
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
if how == "unprivileged":
    os.setuid(65534)
try:
    writer.update_bundle(bundle, manifest, {sha256_bytes(encoder): encoder})
except (FerEdgeError, KeyboardInterrupt) as error:
    print(type(error).__name__, error)
"""


class TestInterruptedUpdate:
    """An update that is stopped half-way, in a process of its own: the old bundle stays whole."""

    @pytest.fixture
    def shared(self) -> Iterator[Bundle]:
        """A bundle in a folder that every user may enter, unlike `tmp_path`."""
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            yield tiny_bundle(Path(name) / "bundle")

    @staticmethod
    def _update(how: str, bundle: Bundle) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        return subprocess.run(
            [sys.executable, "-c", _CHILD, how, str(bundle.path)],
            capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip

    def test_the_update_works_when_nothing_stops_it(self, shared: Bundle) -> None:
        done = self._update("unhindered", shared)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert Bundle.open(shared.path).variant("int8")

    def test_killed_between_graphs_and_manifest(self, shared: Bundle) -> None:
        assert self._update("kill", shared).returncode == -signal.SIGKILL
        assert Bundle.open(shared.path) == shared
        assert verify_bundle(shared.path).ok
        assert len(list((shared.path / "graphs").iterdir())) == 3
        update_bundle(shared, dataclasses.replace(shared.manifest, name="later"))
        assert len(list((shared.path / "graphs").iterdir())) == 2, "the next update drops what the killed one left"

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ("interrupt", "KeyboardInterrupt"),
            ("full", "OutputError cannot write .*: File too large"),
            pytest.param(
                "unprivileged",
                "OutputError cannot write .*: Permission denied",
                marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become an unprivileged user"),
            ),
        ],
    )
    def test_refused_or_interrupted(self, shared: Bundle, how: str, message: str) -> None:
        before = _content(shared.path)
        done = self._update(how, shared)
        assert done.returncode == 0, done.stderr
        assert re.search(message, done.stdout)
        assert _content(shared.path) == before


def test_manifest_names_every_graph(bundle: Bundle) -> None:
    variant = bundle.variant("fp32")
    assert bundle.manifest.graph_files == {file.sha256: file for file in variant.graphs}
    again = tiny_manifest(variant)
    assert again.with_variant(dataclasses.replace(variant, temperature=3.0)).variants[0].temperature == 3.0


class TestTwoHeads:
    def test_both_heads_are_written_and_read_back(self, tmp_path: Path) -> None:
        written = tiny_crowd_bundle(tmp_path / "two", not_judgeable_threshold=0.4)
        opened = Bundle.open(written.path)
        variant = opened.variant("fp32")
        assert opened.manifest == written.manifest
        assert variant.crowd is not None
        assert variant.crowd.not_judgeable_threshold == 0.4
        assert variant.readings == ("crowd", "fer2013")
        assert sha256_bytes(opened.graph_bytes("fp32", "crowd")) == variant.crowd.graph.sha256
        heads = json.loads((written.path / "manifest.json").read_text())["variants"][0]["heads"]
        assert heads["crowd"]["labels"] == [*EXPRESSIONS, "not judgeable"]
        assert set(heads) == {"crowd", "fer2013"}

    def test_a_bundle_with_one_head_has_no_crowd(self, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "one")
        assert bundle.variant("fp32").readings == ("fer2013",)
        with pytest.raises(BundleError, match="reading: got 'crowd', expected 'fer2013'"):
            bundle.graph_bytes("fp32", "crowd")

    def test_the_old_name_of_the_head_is_read(self, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "one", unknown_threshold=0.3)
        value = bundle.manifest.to_json()
        heads = value["variants"][0]["heads"]
        heads["default"] = heads.pop("fer2013")
        assert Manifest.from_json(value) == bundle.manifest

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"labels": ["happy", "not judgeable"]}, r"heads\.crowd\.labels: got .*, expected angry"),
            ({"labels": ["happy"]}, r"labels: got .*, expected the last one to be 'not judgeable'"),
            ({"not_judgeable_threshold": 1.5}, "not_judgeable_threshold: got 1.5"),
            ({"metrics": {"PublicTest": {}}}, r"metrics\.PublicTest"),
        ],
    )
    def test_a_bad_head_is_named(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        value = tiny_crowd_bundle(tmp_path / "two").manifest.to_json()
        value["variants"][0]["heads"]["crowd"].update(change)
        with pytest.raises(BundleError, match=message):
            Manifest.from_json(value)
