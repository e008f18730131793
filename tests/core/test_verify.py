"""What `fer-edge verify` finds in a bundle, and signatures over its manifest."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tiny import graph_file, tiny_bundle, tiny_crowd_bundle, tiny_encoder

from fer_edge.core.bundle import Bundle, PreprocessSpec
from fer_edge.core.bundle_writer import create_bundle, sign_bundle, update_bundle
from fer_edge.core.errors import BundleError, FerEdgeError, InputError
from fer_edge.core.graph_card import with_cards
from fer_edge.core.labels import EXPRESSIONS, NOT_JUDGEABLE
from fer_edge.core.provenance import Provenance, read_provenance
from fer_edge.core.verify import verify_bundle
from fer_edge.runtime.recognizer import Recognizer


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle")


class TestVerify:
    def test_a_sound_bundle(self, bundle: Bundle) -> None:
        report = verify_bundle(bundle.path)
        assert report.ok
        assert report.sha256 == bundle.sha256
        verdicts = [(check.name, check.verdict) for check in report.checks]
        graphs = [("fp32 encoder", "ok"), ("fp32 head", "ok")]
        assert verdicts == [("manifest", "ok"), *graphs, ("provenance", "note"), ("signature", "note")]
        shown = json.loads(json.dumps(report.to_json()))
        assert shown["ok"] is True
        files = {(each["sha256"], each["size_bytes"]) for each in shown["checks"] if each["sha256"]}
        graphs = Bundle.open(report.path).manifest.graph_files
        assert {(sha256, file.size_bytes) for sha256, file in graphs.items()} <= files

    def test_every_fault_is_listed(self, bundle: Bundle) -> None:
        for file, damage in zip(bundle.variant("fp32").graphs, (b"", b"\0" * 10), strict=True):
            (bundle.path / "graphs" / f"{file.sha256}.onnx").write_bytes(damage)
        (bundle.path / "graphs" / "stray.onnx").write_bytes(b"x")
        report = verify_bundle(bundle.path)
        assert not report.ok
        assert [check.verdict for check in report.checks] == ["ok", "failed", "failed", "note", "note", "note"]

    def test_a_changed_history_fails(self, bundle: Bundle) -> None:
        path = update_bundle(bundle, bundle.manifest, provenance=Provenance(training={"seed": 1})).path
        assert verify_bundle(path).ok
        (path / "provenance.json").write_text("{}")
        [failed] = [check for check in verify_bundle(path).checks if check.verdict == "failed"]
        assert failed.name == "provenance"
        (path / "provenance.json").unlink()
        assert not verify_bundle(path).ok

    def test_no_manifest_is_a_failed_check(self, tmp_path: Path) -> None:
        report = verify_bundle(tmp_path)
        assert not report.ok
        assert report.sha256 is None

    @pytest.mark.parametrize(("cut", "message"), [(slice(0, -40), "not a whole ONNX file"), (slice(0, 0), "")])
    def test_a_graph_that_was_cut_before_it_was_hashed(self, tmp_path: Path, cut: slice, message: str) -> None:
        encoder = tiny_encoder().SerializeToString()[cut]
        if not encoder:
            with pytest.raises(InputError, match="size_bytes: got 0"):
                graph_file(encoder)
            return
        bundle = tiny_bundle(tmp_path / "bundle", encoder=encoder)
        [failed] = [check for check in verify_bundle(bundle.path).checks if check.verdict == "failed"]
        assert failed.name == "fp32 encoder"
        assert message in failed.detail


class TestFitness:
    """What the runtime refuses to load, `verify` refuses with the same words."""

    @staticmethod
    def refusals(bundle: Bundle, **recognizer: Any) -> tuple[str, str]:
        with pytest.raises(FerEdgeError) as caught:
            Recognizer(bundle.path, **recognizer)
        failed = [check.detail for check in verify_bundle(bundle.path).checks if check.verdict == "failed"]
        assert failed
        return failed[-1], str(caught.value)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (EXPRESSIONS[:3], "output 'logits' does not fit the manifest: got .* [78].*expected .* [34]"),
            (EXPRESSIONS[::-1], "the head's labels: got .*'neutral', 'surprise'.* expected .*'angry', 'disgust'"),
        ],
    )
    @pytest.mark.parametrize("carded", [False, True])
    def test_labels_cut_or_turned_over(
        self, tmp_path: Path, labels: tuple[str, ...], message: str, carded: bool
    ) -> None:
        bundle = _two_heads(tmp_path, labels=EXPRESSIONS if carded else None)
        for reading in ("fer2013", "crowd"):
            _rewrite(bundle, labels)
            for refusal in self.refusals(bundle, reading=reading):
                assert re.search(message, refusal)

    def test_own_labels_in_another_order_than_their_card(self, tmp_path: Path) -> None:
        bundle = _two_heads(tmp_path, labels=tuple("abcdefg"))
        _rewrite(bundle, tuple("abcdefg"))
        assert verify_bundle(bundle.path).ok
        Recognizer(bundle.path).close()
        _rewrite(bundle, tuple("bacdefg"))
        assert all("the head's labels" in refusal for refusal in self.refusals(bundle))

    def test_inputs_of_another_size(self, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "bundle", preprocess=PreprocessSpec(size=24))
        for refusal in self.refusals(bundle):
            assert re.search("the encoder's input 'frames' does not fit .*16.*24", refusal)


def _two_heads(tmp_path: Path, *, labels: tuple[str, ...] | None) -> Bundle:
    bundle = tiny_crowd_bundle(tmp_path / "bundle")
    if labels is None:
        return bundle
    graphs = {sha: bundle.read_graph(file) for sha, file in bundle.manifest.graph_files.items()}
    crowd = dataclasses.replace(bundle.manifest.variants[0].crowd, labels=(*labels, NOT_JUDGEABLE))
    variant = dataclasses.replace(bundle.manifest.variants[0], crowd=crowd)
    own = dataclasses.replace(bundle.manifest, labels=labels, variants=(variant,), class_frequencies={})
    manifest, carded = with_cards(own, graphs)
    return create_bundle(tmp_path / "carded", manifest, carded)


def _rewrite(bundle: Bundle, labels: tuple[str, ...]) -> None:
    path = bundle.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["labels"] = labels
    manifest["class_frequencies"] = {}
    manifest["variants"][0]["heads"]["crowd"]["labels"] = [*labels, NOT_JUDGEABLE]
    path.write_text(json.dumps(manifest))


class TestHostileFiles:
    """Pipes, devices, loops of links and huge files in place of the bundle's: one error each, and no wait."""

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    @pytest.mark.parametrize("kind", ["pipe", "loop", "folder", "device", "huge"])
    @pytest.mark.parametrize("name", ["manifest.json", "graph", "provenance.json", "manifest.sig", "key"])
    def test_in_place_of_each_file(self, tmp_path: Path, kind: str, name: str) -> None:
        bundle = tiny_bundle(tmp_path / "bundle")
        bundle = update_bundle(bundle, bundle.manifest, provenance=Provenance(training={"seed": 1}))
        private, public = _key_pair(tmp_path, "owner")
        sign_bundle(bundle, private)
        graph = bundle.path / "graphs" / f"{bundle.variant('fp32').encoder.sha256}.onnx"
        place = {"graph": graph, "key": public}.get(name, bundle.path / name)
        place.unlink()
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "loop":
            place.symlink_to(place)
        elif kind == "folder":
            place.mkdir()
        elif kind == "device":
            place.symlink_to("/dev/zero")
        else:
            with place.open("wb") as file:
                file.truncate(1 << 36)
        with pytest.raises(FerEdgeError):
            _read_all(bundle.path, public)
        if name == "key":
            with pytest.raises(InputError):
                verify_bundle(bundle.path, public_key=public)
        else:
            assert not verify_bundle(bundle.path, public_key=public).ok

    def test_a_size_beyond_reason_is_refused_in_the_manifest(self, bundle: Bundle) -> None:
        path = bundle.path / "manifest.json"
        path.write_text(path.read_text().replace('"size_bytes": ', '"size_bytes": 9999999', 1))
        with pytest.raises(BundleError, match=r"size_bytes: got 9999999.*expected 1 to 536870912"):
            Bundle.open(bundle.path)


def _read_all(folder: Path, key: Path) -> None:
    Recognizer(folder, public_key=key).close()
    read_provenance(Bundle.open(folder))


class TestSignature:
    def test_the_runtime_requires_it_where_a_key_is_given(
        self, bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path
    ) -> None:
        with pytest.raises(BundleError, match=r"got no manifest\.sig, expected one made with the owner's key"):
            Recognizer(bundle.path, public_key=keys[1])
        sign_bundle(bundle, keys[0])
        with Recognizer(bundle.path, public_key=str(keys[1])) as recognizer:
            assert recognizer.info.sha256 == bundle.sha256
        with pytest.raises(BundleError, match="got another signature"):
            Recognizer(bundle.path, public_key=_key_pair(tmp_path, "other")[1])
        stale = Bundle.open(bundle.path)
        update_bundle(bundle, dataclasses.replace(bundle.manifest, name="new"))
        with pytest.raises(BundleError, match="got no manifest"):
            Recognizer(stale, public_key=keys[1])

    @pytest.fixture
    def keys(self, tmp_path: Path) -> tuple[Path, Path]:
        return _key_pair(tmp_path, "owner")

    def test_signed_and_checked(self, bundle: Bundle, keys: tuple[Path, Path]) -> None:
        private, public = keys
        assert not verify_bundle(bundle.path, public_key=public).ok, "unsigned"
        sign_bundle(bundle, private)
        assert verify_bundle(bundle.path, public_key=public).ok
        assert verify_bundle(bundle.path).ok
        assert len((bundle.path / "manifest.sig").read_bytes()) == 64

    def test_another_owner(self, bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path) -> None:
        sign_bundle(bundle, keys[0])
        report = verify_bundle(bundle.path, public_key=_key_pair(tmp_path, "other")[1])
        assert [check.name for check in report.checks if check.verdict == "failed"] == ["signature"]

    def test_a_changed_manifest(self, bundle: Bundle, keys: tuple[Path, Path]) -> None:
        sign_bundle(bundle, keys[0])
        manifest = bundle.path / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"tiny"', '"forged"'))
        report = verify_bundle(bundle.path, public_key=keys[1])
        assert [check.name for check in report.checks if check.verdict == "failed"] == ["signature"]

    def test_an_update_drops_it(self, bundle: Bundle, keys: tuple[Path, Path]) -> None:
        sign_bundle(bundle, keys[0])
        update_bundle(bundle, dataclasses.replace(bundle.manifest, name="new"))
        assert not (bundle.path / "manifest.sig").exists()

    def test_a_stale_bundle_is_not_signed(self, bundle: Bundle, keys: tuple[Path, Path]) -> None:
        stale = Bundle.open(bundle.path)
        update_bundle(bundle, dataclasses.replace(bundle.manifest, name="new"))
        with pytest.raises(BundleError, match="was changed since it was opened"):
            sign_bundle(stale, keys[0])

    def test_keys_that_are_none(self, bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path) -> None:
        private, public = keys
        (tmp_path / "text").write_text("hello")
        sign_bundle(bundle, private)
        with pytest.raises(InputError, match="not a PEM private key"):
            sign_bundle(bundle, public)
        with pytest.raises(InputError, match="not a PEM public key"):
            verify_bundle(bundle.path, public_key=tmp_path / "text")
        with pytest.raises(InputError, match=r"cannot read .*nothing"):
            verify_bundle(bundle.path, public_key=tmp_path / "nothing")


def _key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public
