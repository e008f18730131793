#!/usr/bin/env bash
# The whole family from FER2013 alone: an ensemble of teachers, the FP32 original taught by it, then base, small and nano;
# last, all but nano learn the labels as they are (bench/README.md, "Labels last").
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

toward_labels() { # NAME: the run OUT/NAME trained on, at a low rate and mostly toward plain labels, in OUT/NAME-labels
    learn "$1-labels" "$out/$1" --init "$out/$1" "${ensemble[@]}" --set loss.votes_weight=0 \
        --set loss.label_smoothing=0 --set loss.distil_weight=0.3 --set "loss.distil_views=$views" \
        --set loss.distil_consensus=1.0 --set "optimiser.epochs=$((epochs / 10 + 1))" \
        --set optimiser.learning_rate=3e-4 --set optimiser.warmup_epochs=0.5
}

ship() { # RUN NAME: the run OUT/RUN as the bundle OUT/zoo/NAME, whose INT8 forms have passed the gate
    if [[ ! -f $out/zoo/$2/manifest.json ]]; then
        fer-edge export "$out/$1" --out "$out/zoo/$2" --name "$2"
    fi
    fer-edge calibrate "$out/zoo/$2" --data "$data" --recipe float-layers
}

ensemble=()
for ((seed = 0; seed < teachers; seed++)); do
    learn "teacher-$seed" teacher --set "seed=$seed" --set "optimiser.epochs=$epochs"
    ensemble+=(--teacher "$out/teacher-$seed")
done

learn full full "${ensemble[@]}" --set "optimiser.epochs=$epochs" --set optimiser.skip_easy=0.0 \
    --set optimiser.ema_decay=0.9995 --set "loss.distil_views=$views" --set loss.distil_consensus=0.5 \
    --set 'model.stem="pooled"'
fer-edge prune "$out/full" --idle-blocks --parameters 1_200_000 --data "$data" --out "$out/base" --device "$device" --resume \
    --set steps=3 --set "optimiser.epochs=$((epochs / 4))"
learn small small "${ensemble[@]}" --teacher "$out/full" \
    --set "optimiser.epochs=$((2 * epochs))" --set "loss.distil_views=$views"
learn nano nano "${ensemble[@]}" --teacher "$out/full" --set "optimiser.epochs=$((3 * epochs))" \
    --set "loss.distil_views=$views"

for name in full base small; do
    toward_labels "$name"
    ship "$name-labels" "$name"
done
ship nano nano
