#!/usr/bin/env bash
# Proves, without an ARM machine, that the runtime installs and computes the same on arm64: a Debian arm64 root file
# system under qemu user emulation, the wheel of this checkout and its aarch64 wheels from PyPI, then `fer-edge verify`,
# `fer-edge run` and LiteRT there, compared with this machine. Times under emulation mean nothing and are not recorded.
#
#   sudo runtime/prove-arm64.sh [--work DIR] [--bundle NAME] [--clip VIDEO] [--result FILE]
#
# Needs, on Debian or Ubuntu: apt-get install debootstrap qemu-user-static binfmt-support python3-venv
# Takes some ten minutes of processor time and 3 GB in DIR; a second run uses what the first one fetched. With --clip a
# video of yours is run too, in full. DIR/root is the root file system.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
work=/tmp/fer-edge-arm64
bundle=base
clip=
result=
litert='ai-edge-litert>=2.0'
suite=bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
python=${PYTHON:-python3}

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
fail() {
    printf 'prove-arm64: %s\n' "$*" >&2
    exit 1
}

while (($#)); do
    case $1 in
        --work | --bundle | --clip | --result)
            (($# > 1)) || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
            exit 0
            ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done

result=${result:-$repository/bench/results/arm64-qemu/$bundle.json}
[[ $(uname -m) == x86_64 ]] || fail "this machine is $(uname -m); the proof compares arm64 with x86-64"
((EUID == 0)) || fail "a root file system is made by root: run it with sudo"
[[ -z $clip || -f $clip ]] || fail "no video at $clip"
for tool in debootstrap qemu-aarch64-static update-binfmts "$python"; do
    command -v "$tool" >/dev/null ||
        fail "$tool is missing: apt-get install debootstrap qemu-user-static binfmt-support python3-venv"
done
binfmt=/proc/sys/fs/binfmt_misc
[[ -e $binfmt/register ]] || mount -t binfmt_misc binfmt_misc "$binfmt" || fail "cannot mount binfmt_misc on $binfmt"
[[ -e $binfmt/qemu-aarch64 ]] || update-binfmts --enable qemu-aarch64 || fail "cannot register qemu-aarch64"

root=$work/root
mkdir -p "$work/wheels" "$work/x86" "$work/arm64"

# An existing folder is complete: debootstrap works beside it and the result is renamed at the end.
if [[ ! -d $root ]]; then
    say "making a Debian $suite arm64 root file system (about 3 minutes)"
    rm -rf "$root.part"
    debootstrap --arch=arm64 --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$root.part" \
        "$mirror" >"$work/debootstrap.log" 2>&1 || fail "debootstrap failed; see $work/debootstrap.log"
    mv "$root.part" "$root"
fi
arm() { chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/bin:/bin OMP_NUM_THREADS=1 "$@"; }
[[ $(arm uname -m) == aarch64 ]] || fail "$root does not run as aarch64; is qemu-aarch64 registered with flag F?"
# No /sys: it lists this machine's x86 processors, on which ONNX Runtime 1.32 for arm64 crashes.
for place in proc dev; do
    mountpoint -q "$root/$place" || mount --bind "/$place" "$root/$place"
done
trap 'for place in dev proc; do umount "$root/$place" || true; done' EXIT

say "building the wheel and fetching its aarch64 wheels"
rm -f "$work"/wheels/fer_edge-*.whl
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work/wheels" "$repository"
wheel=$(echo "$work"/wheels/fer_edge-*.whl)
version=$(arm python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --dest "$work/wheels" --python-version "$version" \
    --implementation cp --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 "${wheel}[cpu]" "$litert"

say "installing it in the root file system"
rm -rf "$root/proof/wheels"
mkdir -p "$root/proof"
cp -r "$work/wheels" "$repository/runtime/arm64/outputs.py" "$root/proof/"
[[ -d $root/proof/venv ]] || arm python3 -m venv /proof/venv
arm /proof/venv/bin/pip uninstall --quiet --yes fer-edge
# Without compiling: it takes longer than all the rest, and pip's compiler has crashed under qemu 7.2.
arm /proof/venv/bin/pip install --quiet --disable-pip-version-check --no-compile --no-index --find-links /proof/wheels \
    "/proof/wheels/$(basename "$wheel")[cpu]" "$litert"

say "installing the same versions on this machine"
arm /proof/venv/bin/pip freeze --exclude fer-edge >"$work/versions.txt"
[[ -d $work/venv ]] || "$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheel"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$work/versions.txt" "${wheel}[cpu,litert]"

say "recording outputs on both"
cd "$work" # away from the checkout, so that the wheel is what is imported
unset PYTHONPATH
export OMP_NUM_THREADS=1
venv/bin/python "$repository/runtime/arm64/outputs.py" draw faces.npz drawn.avi
variants=$(venv/bin/python -c '
import sys
from fer_edge.core.bundle import Bundle
print(*[variant.name for variant in Bundle.open(sys.argv[1]).manifest.variants])' "$bundle")
rm -rf litert "$root/proof/litert"
for variant in $variants; do
    venv/bin/fer-edge export "$bundle" --target litert --variant "$variant" --out "litert/$variant" >/dev/null 2>&1
done
venv/bin/python "$repository/runtime/arm64/outputs.py" record "$bundle" faces.npz x86/outputs.npz litert
cp -r faces.npz drawn.avi litert "$root/proof/"
arm /proof/venv/bin/fer-edge verify "$bundle" --json >arm64/verify.json
arm /proof/venv/bin/python /proof/outputs.py record "$bundle" /proof/faces.npz /proof/outputs.npz \
    /proof/litert
cp "$root/proof/outputs.npz" arm64/

declare -A sources=([drawn]=drawn.avi)
if [[ -n $clip ]]; then
    cp "$clip" "$root/proof/clip.mp4"
    cp "$clip" clip.mp4
    sources[clip]=clip.mp4
fi
rm -rf x86/runs arm64/runs "$root/proof/runs"
mkdir -p x86/runs arm64/runs "$root/proof/runs"
for variant in $variants; do
    for name in "${!sources[@]}"; do
        say "fer-edge run $bundle --variant $variant --source ${sources[$name]} on both"
        venv/bin/fer-edge run "$bundle" --variant "$variant" --source "${sources[$name]}" \
            --json "x86/runs/$name-$variant.jsonl" >/dev/null 2>&1
        arm /bin/sh -c 'cd /proof && exec venv/bin/fer-edge run "$@"' sh "$bundle" --variant "$variant" \
            --source "${sources[$name]}" --json "runs/$name-$variant.jsonl" >arm64/run.log 2>&1 ||
            fail "the run failed under emulation; see $work/arm64/run.log"
    done
done
cp "$root"/proof/runs/*.jsonl arm64/runs/

emulator=$(qemu-aarch64-static --version | head -n 1)
printf '{"system": "Debian %s arm64", "emulator": "%s", "clip": "%s"}\n' "$(cat "$root/etc/debian_version")" \
    "$emulator" "$(basename "$clip")" >arm64/system.json
mkdir -p "$(dirname "$result")"
venv/bin/python "$repository/runtime/arm64/outputs.py" compare x86 arm64 "$result"
say "wrote $result"
