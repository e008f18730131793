#!/usr/bin/env bash
# Builds the engines of @bundle@'s @variant@ in @precision@ for @title@ (@found_in@).
# Written by fer-edge for the target @target@; bundle @bundle_sha256@.
#
# Run it on the device, beside the graphs. An existing engine is kept; remove it to build it again.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
if [[ ! -x $trtexec ]]; then
    echo "build-engines.sh: no trtexec here; on a Jetson: sudo apt-get install libnvinfer-bin" >&2
    exit 1
fi

help=$("$trtexec" --help 2>&1 || true)
if [[ $help =~ TensorRT\ v([0-9]+) || $help =~ TensorRT\.trtexec\ \[TensorRT\ v([0-9]+)\] ]]; then
    found=${BASH_REMATCH[1]}
    if (( found < @since@ || found >= @before@ )); then
        echo "build-engines.sh: these graphs are made for @title@, trtexec is TensorRT v$found;" \
            "export for the target of that version" >&2
        exit 1
    fi
fi
# Up to 8.5 the flag that builds without timing the engine has another name.
only_build=--buildOnly
[[ $help != *--skipInference* ]] || only_build=--skipInference
# Precisions are the graph's own; TensorRT 11 always works that way and has no flag for it.
typed=@typed@
[[ $help == *--stronglyTyped* ]] || typed=

unfinished=
trap '[[ -z $unfinished ]] || rm -f -- "$unfinished"' EXIT

build() {
    local part=$1
    shift
    if [[ -e $part.engine ]]; then
        echo "$part.engine exists already"
        return
    fi
    unfinished=$part.engine.part
    "$trtexec" --onnx="$part.onnx" --saveEngine="$unfinished" "$only_build" ${typed:+"$typed"} "$@"
    mv -- "$unfinished" "$part.engine"
    unfinished=
}

@calls@
