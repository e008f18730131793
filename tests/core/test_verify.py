"""What `fer-edge verify` finds in a bundle, and signatures over its manifest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny import graph_file, tiny_bundle, tiny_encoder

from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import sign_bundle, update_bundle
from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.provenance import Provenance
from fer_edge.core.verify import verify_bundle


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
        assert json.loads(json.dumps(report.to_json()))["ok"] is True

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


class TestSignature:
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
