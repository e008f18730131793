#!/usr/bin/env bash
# The whole family from FER2013 alone: an ensemble of teachers, the FP32 original taught by it, then base, small and nano.
#
#     bench/train_family.sh fer2013:PATH [OUT] [DEVICE]
#
# OUT (runs/family) holds a run each; a step that is done is not done again, one that was broken off goes on. DEVICE (auto)
# is torch's. Epochs are for a GPU that takes seconds over each; TEACHERS, EPOCHS and VIEWS make it shorter. Everything is
# chosen on PublicTest. The bundles come into OUT/zoo; `fer-edge bench` and `fer-edge card` finish them (bench/README.md).
set -euo pipefail

data=${1:?the data set: fer2013:PATH}
out=${2:-runs/family}
device=${3:-auto}
teachers=${TEACHERS:-4}
epochs=${EPOCHS:-200}
views=${VIEWS:-32}

learn() { # NAME RECIPE ARGUMENT...: a training run in OUT/NAME
    local name=$1 recipe=$2
    shift 2
    fer-edge train "$recipe" --data "$data" --out "$out/$name" --device "$device" --resume "$@"
}

ship() { # NAME: the run OUT/NAME as a bundle whose INT8 forms have passed the gate
    if [[ ! -f $out/zoo/$1/manifest.json ]]; then
        fer-edge export "$out/$1" --out "$out/zoo/$1" --name "$1"
    fi
    fer-edge calibrate "$out/zoo/$1" --data "$data" --recipe float-layers
}

# Four parts of five follow what the teachers agree on over all views of a face, on new views in every epoch; the rest are
# plain labels.
followed=(--set "loss.distil_views=$views" --set loss.distil_consensus=1.0 --set loss.distil_weight=0.8
    --set loss.votes_weight=0 --set loss.label_smoothing=0)

ensemble=()
for ((seed = 0; seed < teachers; seed++)); do
    learn "teacher-$seed" teacher --set "seed=$seed" --set "optimiser.epochs=$epochs"
    ensemble+=(--teacher "$out/teacher-$seed")
done

learn full full "${ensemble[@]}" "${followed[@]}" --set "optimiser.epochs=$epochs" --set optimiser.skip_easy=0.0 \
    --set optimiser.ema_decay=0.9995 --set 'model.stem="pooled"'
fer-edge prune "$out/full" --idle-blocks --parameters 1_200_000 --data "$data" --out "$out/pruned" --device "$device" \
    --resume --set steps=3 --set "optimiser.epochs=$((epochs / 4))"
learn base "$out/pruned" --init "$out/pruned" "${ensemble[@]}" "${followed[@]}" --set "optimiser.epochs=$((epochs / 2))" \
    --set optimiser.skip_easy=0.5
learn small small "${ensemble[@]}" --teacher "$out/full" "${followed[@]}" --set "optimiser.epochs=$((2 * epochs))"
learn nano nano "${ensemble[@]}" --teacher "$out/full" --set "optimiser.epochs=$((3 * epochs))" \
    --set "loss.distil_views=$views"

for name in full base small nano; do
    ship "$name"
done
