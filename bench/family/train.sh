#!/usr/bin/env bash
# The shipped family from FER2013 with FER+ votes and random weights:
#
#     bench/family/train.sh fer2013:PATH [OUT] [DEVICE]
#
# 1. Teachers of two shapes, each trained on three of four folds of Training.
# 2. full, base, small, nano: from random weights toward labels, votes and what the teachers say of faces that they never saw.
# 3. Bundles with INT8 forms that passed the gate, in OUT/zoo.
#
# OUT (runs/family) holds a run for each; a finished step is skipped and a broken-off one continues after its last epoch. A teacher
# takes half an hour of one core with bf16. The finished ones are in teachers/ (half precision) and are used unless FRESH=1.
# EPOCHS=2 tries the script out.
set -euo pipefail

data=${1:?data set expected: fer2013:PATH}
out=${2:-runs/family}
device=${3:-auto}
here=$(cd "$(dirname "$0")" && pwd)
folds=4
short=(${EPOCHS:+--set "optimiser.epochs=$EPOCHS"})

steps=()
for shape in a b; do
    for ((fold = 0; fold < folds; fold++)); do steps+=("teacher-$shape-$fold"); done
done
steps+=(full base small nano)

remaining() { # prints the steps without a finished run
    local step
    for step in "${steps[@]}"; do
        grep -q '"done": true' "$out/$step/run.json" 2>/dev/null || printf ' %s' "$step"
    done
}

learn() { # RUN RECIPE ARGUMENT...
    local run=$1 recipe=$2
    shift 2
    echo "to train:$(remaining)" >&2
    fer-edge train "$here/$recipe.toml" --data "$data" --out "$out/$run" --device "$device" --resume "${short[@]}" "$@"
}

mkdir -p "$out"
if [[ -z ${FRESH:-} && -z ${EPOCHS:-} && -d $here/teachers ]]; then
    cp -rn "$here/teachers/." "$out/"
fi

teachers=()
for shape in a b; do
    for ((fold = 0; fold < folds; fold++)); do
        learn "teacher-$shape-$fold" "teacher-$shape" --fold "$fold/$folds"
        teachers+=(--teacher "$out/teacher-$shape-$fold")
    done
done
for name in full base small nano; do
    learn "$name" "$name" "${teachers[@]}"
    if [[ ! -f $out/zoo/$name/manifest.json ]]; then
        fer-edge export "$out/$name" --out "$out/zoo/$name" --name "$name"
        fer-edge calibrate "$out/zoo/$name" --data "$data" --recipe float-layers
    fi
done
