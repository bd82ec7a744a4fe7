#!/usr/bin/env bash
# Fine-tune a pre-trained model:
#   bash scripts/finetune.sh [CONFIG] [key=value ...] [--resume auto|PATH] [--load-from PATH]
# CONFIG defaults to the paper's fine-tuning on DAVIS-16.
#
# From the environment, beside what scripts/train.sh reads:
#   LOAD_FROM   checkpoint to start from (the newest best.pt of the pre-training runs, runs/pretrain*/)
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
config="$root/configs/finetune_davis16.yaml"
if [[ $# -gt 0 && "$1" != *=* && "$1" != -* ]]; then
    config="$1"
    shift
fi

for argument in "$@"; do
    case "$argument" in
    --load-from* | train.load_from=*) exec bash "$root/scripts/train.sh" "$config" "$@" ;;
    esac
done

load_from="${LOAD_FROM:-}"
if [[ -z "$load_from" ]]; then
    for candidate in "$root"/runs/pretrain*/ckpt/best.pt; do
        if [[ -f "$candidate" && (-z "$load_from" || "$candidate" -nt "$load_from") ]]; then
            load_from="$candidate"
        fi
    done
fi
if [[ -z "$load_from" ]]; then
    echo "error: no runs/pretrain*/ckpt/best.pt to start from; run scripts/train.sh first, or set LOAD_FROM=FILE" >&2
    exit 2
fi
if [[ ! -f "$load_from" ]]; then
    echo "error: LOAD_FROM=$load_from is not a file" >&2
    exit 2
fi
load_from="$(cd "$(dirname "$load_from")" && pwd)/$(basename "$load_from")"
echo "fine-tuning from $load_from" >&2
exec bash "$root/scripts/train.sh" "$config" "$@" --load-from "$load_from"
