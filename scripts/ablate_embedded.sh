#!/usr/bin/env bash
# The paper's ablation (Tables 3, 4 and 6) in miniature, on synthetic video; run again, it continues:
#   bash scripts/ablate_embedded.sh [SEED ...]        (seed 42 by default; half an hour on one CPU core for each)
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
python="$(find_python)"
if [[ $# -eq 0 ]]; then
    set -- 42
fi
runs=runs/ablation_embedded
data=$runs/data/Sample

"$python" tools/make_synthetic.py --output "$data" --split train --videos 800 --frames 5 --size 80 128 --flow mixed
"$python" tools/make_synthetic.py --output "$data" --split val --videos 40 --frames 10 --size 80 128 --flow mixed \
    --seed 90000

no_banks="model.memory_stages=[] model.high_to_shallow=none model.shallow_to_high=none"
no_links="model.high_to_shallow=none model.shallow_to_high=none"
rows=(
    "image_only      $no_banks model.inputs=image"
    "flow_only       $no_banks model.inputs=flow"
    "baseline        $no_banks"
    "shallow         $no_links model.memory_stages=[2]"
    "high            $no_links model.memory_stages=[4]"
    "both            $no_links"
    "both_plam       model.high_to_shallow=none"
    "both_sgim       model.shallow_to_high=none"
    "full"
)
for seed in "$@"; do
    for row in "${rows[@]}"; do
        read -r -a words <<< "$row"
        bash scripts/train.sh configs/embedded_ablation.yaml "${words[@]:1}" "train.seed=$seed" \
            "data.root=$runs/data" "train.output=$runs/${words[0]}/seed$seed" --resume auto
    done
done
"$python" tools/compare_runs.py "$runs"/*/seed*
