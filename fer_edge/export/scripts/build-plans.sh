#!/usr/bin/env bash
# Builds the TensorRT plans of this repository. A plan is for one GPU model and one TensorRT version: run this on the
# server's GPU, in the server's own container release, for example
#   docker run --rm --gpus all -v "$PWD:/work" -w /work nvcr.io/nvidia/tensorrt:25.08-py3 ./build-plans.sh
set -euo pipefail
cd "$(dirname "$0")"

command -v trtexec >/dev/null || PATH=$PATH:/usr/src/tensorrt/bin
if ! command -v trtexec >/dev/null; then
    echo "build-plans.sh: no trtexec here; run it in the tensorrt container of the server's release" >&2
    exit 1
fi
# Precisions are the graph's own; TensorRT 11 always works that way and has no flag for it.
typed=()
if trtexec --help | grep -q -- --stronglyTyped; then
    typed=(--stronglyTyped)
fi

# build MODEL PROFILE...: onnx/MODEL.onnx to models/MODEL/1/model.plan, whole or not at all.
build() {
    local model=$1 plan=models/$1/1/model.plan
    shift
    mkdir -p "models/$model/1"
    trtexec --onnx="onnx/$model.onnx" --saveEngine="$plan.part" "${typed[@]}" --skipInference "$@"
    mv "$plan.part" "$plan"
    echo "built $plan"
}

@builds@