#!/usr/bin/env bash
# Rebuild the bundled weights from nothing (hours on two CPU cores; run again, it continues where it stopped):
#   bash scripts/embedded.sh [OUTPUT.safetensors [key=value ...]]
# Settings go to all stages.
#
# From the environment:
#   EDITION   2: the bundled weights (default); hmmn: those that follow objects given by masks; 1: the first edition.
#             2 and hmmn begin with an ImageNet encoder and need requirements-train.txt
#   PYTHON    interpreter (the active environment's, else .venv's, else python3)
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
PYTHON="$(find_python)"
export PYTHON

case "${EDITION:-2}" in
1)
    stages=(embedded_pretrain embedded embedded_clips embedded_finish)
    output=runs/hmhi_embedded1.safetensors
    ;;
2)
    stages=(embedded2_96 embedded2_128 embedded2_192 embedded2_finish)
    output=hmhi/weights/hmhi_embedded.safetensors
    ;;
hmmn)
    stages=(svos/hmmn_small_96 svos/hmmn_small_160 svos/hmmn_small_240)
    output=hmhi/weights/hmmn_embedded.safetensors
    ;;
*)
    echo "error: EDITION=$EDITION: there are 1, 2 and hmmn" >&2
    exit 2
    ;;
esac
if [[ $# -gt 0 ]]; then
    output="$1"
    shift
fi

bash scripts/train.sh "configs/${stages[0]}.yaml" "$@" --resume auto
for ((i = 1; i < ${#stages[@]}; i++)); do
    LOAD_FROM="runs/${stages[i - 1]##*/}/ckpt/best.pt" \
        bash scripts/finetune.sh "configs/${stages[i]}.yaml" "$@" --resume auto
done
"$PYTHON" tools/export_weights.py --checkpoint "runs/${stages[-1]##*/}/ckpt/best.pt" --output "$output"
