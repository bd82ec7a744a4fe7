#!/usr/bin/env bash
# From a fresh clone to segmented video, and to a trained, applied and scored HMHI-Net, without a download of data:
#   bash scripts/quickstart.sh [VIDEO ...]
# First segments built-in clips, and your own VIDEOs (files or frame folders), with the bundled weights; then trains.
# Installs requirements.txt into .venv unless the active environment has it already. Run again, it keeps what is done.
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
given=$#
for video in "$@"; do
    if [[ ! -e "$video" ]]; then
        echo "error: $video not found; name a video file or a folder of frames" >&2
        exit 2
    fi
    set -- "$@" "$(cd "$(dirname "$video")" && pwd)/$(basename "$video")"
done
shift "$given"
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

step "1/7 making synthetic videos in $data"
"$python" tools/make_synthetic.py --output "$data" --split train --videos 400 --frames 3 --size 96 128
"$python" tools/make_synthetic.py --output "$data" --split val --videos 16 --frames 5 --size 192 256 --seed 90000

step "2/7 segmenting with the bundled weights"
"$python" tools/infer.py --input "$data/Images/val" --output "$output/embedded" --overlay --overwrite
for video in "$@"; do
    bash scripts/infer.sh "$video" --overlay --overwrite
done

step "3/7 pre-training (configs/quickstart_pretrain.yaml)"
bash scripts/train.sh configs/quickstart_pretrain.yaml --resume auto

step "4/7 fine-tuning (configs/quickstart_finetune.yaml)"
LOAD_FROM=runs/quickstart_pretrain/ckpt/best.pt bash scripts/finetune.sh configs/quickstart_finetune.yaml --resume auto

step "5/7 segmenting the validation videos"
"$python" tools/infer.py --input "$data/Images/val" --flow "$data/Flows/val" --output "$output" \
    --checkpoint runs/quickstart_finetune/ckpt/best.pt --overlay --overwrite

step "6/7 scoring, beside two trivial methods"
"$python" tools/make_baselines.py --flow "$data/Flows/val" --output "$output/baselines"
"$python" tools/val_zvos.py --protocol all-frames --gt "$data/Annotations/val" --json "$output/scores.json" \
    --pred "hmhi-net=$output/masks" --pred "bundled-weights=$output/embedded/masks" \
    --pred "all-foreground=$output/baselines/all-foreground" --pred "flow-magnitude=$output/baselines/flow"

step "7/7 drawing"
"$python" tools/draw_strip.py --images "$data/Images/val" --flows "$data/Flows/val" --gt "$data/Annotations/val" \
    --pred "$output/masks" --output "$output/strip.png"

cat <<END

done in $((SECONDS - started)) s
  masks        $root/$output/masks/<sequence>/<frame>.png, and in $output/embedded those of the bundled weights
  overlays     $root/$output/overlay/<sequence>.mp4
  strip        $root/$output/strip.png   (image | flow | truth | prediction | overlay)
  scores       $root/$output/scores.json
  checkpoint   $root/runs/quickstart_finetune/ckpt/best.pt
  TensorBoard  $python -m tensorboard.main --logdir "$root/runs"
END
for video in "$@"; do
    echo "  your video   $root/outputs/$(basename "${video%.*}")/"
done
if [[ $# -eq 0 ]]; then
    echo "your own video: bash scripts/infer.sh my_video.mp4 --overlay"
fi
