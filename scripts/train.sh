#!/usr/bin/env bash
# Train a model:
#   bash scripts/train.sh [CONFIG] [key=value ...] [--resume auto|PATH] [--load-from PATH]
# CONFIG defaults to the paper's pre-training. Relative paths in settings count from the repository's root.
#
# From the environment:
#   CUDA_VISIBLE_DEVICES     GPUs to use (all of them by default)
#   NPROC                    processes on this machine (one for each GPU; one without a GPU)
#   NNODES NODE_RANK         machines, and the number of this one from 0 (1 and 0)
#   MAX_RESTARTS             how often a run on one machine is started again after a process died (0); --resume auto
#   MASTER_ADDR MASTER_PORT  where machine 0 listens (127.0.0.1 and 29500), for several machines
#   PYTHON                   interpreter (the active environment's, else .venv's, else python3)
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
config="$root/configs/pretrain_ytvos.yaml"
if [[ $# -gt 0 && "$1" != *=* && "$1" != -* ]]; then
    config="$1"
    shift
    if [[ -e "$config" ]]; then
        config="$(cd "$(dirname "$config")" && pwd)/$(basename "$config")"
    fi
fi
cd "$root"
python="$(find_python)"

nproc="${NPROC:-$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}"
nnodes="${NNODES:-1}"
train=(tools/train.py --config "$config" "$@")

for argument in "$@"; do
    if [[ "$argument" == --dry-run ]]; then
        exec "$python" "${train[@]}" --processes $((nproc * nnodes))
    fi
done

if [[ "$nproc" == 1 && "$nnodes" == 1 ]]; then
    exec "$python" "${train[@]}"
fi

restarts="${MAX_RESTARTS:-0}"
if [[ "$restarts" != 0 && ("$nnodes" != 1 || "$*" != *"--resume auto"*) ]]; then
    echo "error: MAX_RESTARTS=$restarts is for one machine, and needs --resume auto" >&2
    exit 2
fi

# What is missing is said once and plainly, before torchrun starts.
"$python" "${train[@]}" --check
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [[ "$nnodes" == 1 ]]; then
    launch=(--standalone --max-restarts "$restarts")
else
    launch=(--nnodes "$nnodes" --node-rank "${NODE_RANK:-0}"
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}")
fi
exec "$python" -m hmhi.commands.launch "${launch[@]}" --nproc-per-node "$nproc" "${train[@]}"
