#!/usr/bin/env bash
# From a fresh clone to a trained, applied and scored HMHI-Net, on built-in data, without a download of data:
#   bash scripts/quickstart.sh
# Installs requirements.txt into .venv unless the active environment has it already. Run again, it keeps what is done.
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
prepare_python requirements.txt
export PYTHON="$python"

data=data/Sample
output=outputs/quickstart
started=$SECONDS

step() { printf '\n[%d s] %s\n' "$((SECONDS - started))" "$1"; }
explain_failure() {
    if [[ $? -ne 0 ]]; then
        echo "quickstart stopped; mend what the message above names and run it again, finished steps are kept" >&2
    fi
}
trap explain_failure EXIT

step "1/6 making synthetic videos in $data"
"$python" tools/make_synthetic.py --output "$data" --split train --videos 400 --frames 3 --size 96 128
"$python" tools/make_synthetic.py --output "$data" --split val --videos 6 --frames 12 --size 192 256 --seed 90000

step "2/6 pre-training (configs/quickstart_pretrain.yaml)"
bash scripts/train.sh configs/quickstart_pretrain.yaml --resume auto

step "3/6 fine-tuning (configs/quickstart_finetune.yaml)"
LOAD_FROM=runs/quickstart_pretrain/ckpt/best.pt bash scripts/finetune.sh configs/quickstart_finetune.yaml --resume auto

step "4/6 segmenting the validation videos"
"$python" tools/infer.py --input "$data/Images/val" --flow "$data/Flows/val" --output "$output" \
    --checkpoint runs/quickstart_finetune/ckpt/best.pt --overlay --overwrite

step "5/6 scoring, beside two trivial methods"
"$python" tools/make_baselines.py --flow "$data/Flows/val" --output "$output/baselines"
"$python" tools/val_zvos.py --protocol all-frames --gt "$data/Annotations/val" --json "$output/scores.json" \
    --pred "hmhi-net=$output/masks" \
    --pred "all-foreground=$output/baselines/all-foreground" --pred "flow-magnitude=$output/baselines/flow"

step "6/6 drawing"
"$python" tools/draw_strip.py --images "$data/Images/val" --flows "$data/Flows/val" --gt "$data/Annotations/val" \
    --pred "$output/masks" --output "$output/strip.png"

cat <<END

done in $((SECONDS - started)) s
  masks        $root/$output/masks/<sequence>/<frame>.png
  overlays     $root/$output/overlay/<sequence>.mp4
  strip        $root/$output/strip.png   (image | flow | truth | prediction | overlay)
  scores       $root/$output/scores.json
  checkpoint   $root/runs/quickstart_finetune/ckpt/best.pt
  TensorBoard  $python -m tensorboard.main --logdir "$root/runs"
your own video: bash scripts/infer.sh my_video.mp4 --overlay
END
