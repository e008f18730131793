#!/usr/bin/env bash
# Measure the shipped bundles in LiteRT beside ONNX Runtime and OpenVINO: accuracy, x, and the integer kernels.
#
#   taskset -c 1 bench/litert.sh DEVICE fer2013:PATH          # PublicTest
#   taskset -c 1 bench/litert.sh DEVICE fer2013:PATH report   # then PrivateTest too, once; it is logged
#
# Writes bench/results/DEVICE/litert-{public,int8,private}.json. Run it from the repository's root.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=bench/results/$1 data=$2
bundles=(full base small nano)
mkdir -p "$out"
export OMP_NUM_THREADS=1
fer-edge bench "${bundles[@]}" --original full --provider cpu --provider openvino --provider litert \
  --data "$data" --split choose --json "$out/litert-public.json" --overwrite
python bench/litert_int8.py "${bundles[@]}" --data "$data" --json "$out/litert-int8.json"
if [[ ${3:-} == report ]]; then
  fer-edge bench "${bundles[@]}" --provider litert --data "$data" --split report \
    --json "$out/litert-private.json" --overwrite
fi
