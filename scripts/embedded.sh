#!/usr/bin/env bash
# Rebuild the weights in the box from nothing (hours on two CPU cores; run again, it continues where it stopped):
#   bash scripts/embedded.sh [OUTPUT.safetensors [key=value ...]]
# Settings go to all four stages.
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
output="${1:-hmhi/weights/hmhi_embedded.safetensors}"
[[ $# -eq 0 ]] || shift
PYTHON="$(find_python)"
export PYTHON

bash scripts/train.sh configs/embedded_pretrain.yaml "$@" --resume auto
LOAD_FROM=runs/embedded_pretrain/ckpt/best.pt bash scripts/finetune.sh configs/embedded.yaml "$@" --resume auto
LOAD_FROM=runs/embedded/ckpt/best.pt bash scripts/finetune.sh configs/embedded_clips.yaml "$@" --resume auto
LOAD_FROM=runs/embedded_clips/ckpt/best.pt bash scripts/finetune.sh configs/embedded_finish.yaml "$@" --resume auto
"$PYTHON" tools/export_weights.py --checkpoint runs/embedded_finish/ckpt/best.pt --output "$output"
