#!/usr/bin/env bash
# Segment videos:
#   bash scripts/infer.sh INPUT [OUTPUT] [tools/infer.py arguments] [key=value ...]
# INPUT is a folder of frames, a folder of sequences, or a video file; OUTPUT defaults to outputs/<name of INPUT>.
# Without arguments: the DAVIS-16 validation set, as in the paper.
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
python="$(find_python)"

if [[ $# -eq 0 ]]; then
    cd "$root"
    set -- data/DAVIS-16/Images/val outputs/davis16 --flow data/DAVIS-16/Flows/val
    if [[ ! -d "$1" ]]; then
        echo "error: $root/$1 not found; name an input: bash scripts/infer.sh INPUT, or prepare DAVIS-16 (docs/DATA.md)" >&2
        exit 2
    fi
fi
input="$1"
shift
output="$root/outputs/$(basename "${input%/}" | sed 's/\.[^.]*$//')"
if [[ $# -gt 0 && "$1" != -* && "$1" != *=* ]]; then
    output="$1"
    shift
fi
"$python" "$root/tools/infer.py" --input "$input" --output "$output" "$@"
echo "score them: $python tools/val_zvos.py --pred $output/masks --gt ANNOTATIONS" >&2
