#!/usr/bin/env bash
# Segment videos:
#   bash scripts/infer.sh INPUT [OUTPUT] [tools/infer.py arguments] [key=value ...]
# INPUT is a video file, a frame folder, a zip, a folder of these, a quoted pattern, camera:0, or a data set's name
# (docs/INFERENCE.md); OUTPUT defaults to outputs/<name of INPUT> in the repository.
# Without arguments: the DAVIS-16 validation set, with what scripts/finetune.sh has trained on DAVIS-16 if it has.
# Weights are the bundled ones unless --checkpoint FILE names others.
#
# From the environment:
#   NPROC    processes that share the videos (1), one for each GPU at most
#   PYTHON   interpreter (the active environment's, else .venv's, else python3)
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
python="$(find_python)"

if [[ $# -eq 0 ]]; then
    cd "$root"
    set -- davis16
    finetuned=runs/finetune_davis16/ckpt/best.pt
    if [[ -f "$finetuned" ]]; then
        set -- davis16 --checkpoint "$finetuned"
    fi
fi
input="$1"
shift
# "...mp4" must not become "..": no patterns, control characters, or dots and dashes in front
name="$(basename -- "${input%/}" | sed 's/\.[^.]*$//' | tr -d '*?[]:[:cntrl:]' | sed 's/^[.-]*//')"
output="$root/outputs/${name:-videos}"
if [[ $# -gt 0 && "$1" != -* && "$1" != *=* ]]; then
    output="$1"
    shift
fi
infer=("$root/tools/infer.py" --input "$input" --output "$output" "$@")
if [[ "${NPROC:-1}" == 1 ]]; then
    exec "$python" "${infer[@]}"
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$python" -m hmhi.commands.launch --standalone --nproc-per-node "$NPROC" "${infer[@]}"
