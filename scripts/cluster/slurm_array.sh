#!/usr/bin/env bash
# Segment a long list of videos as an array job; a task that dies is resumed by submitting the same again:
#   sbatch --array=0-99 scripts/cluster/slurm_array.sh videos.txt /results
# More at a time than the cluster gives is no harm: --array=0-99%20 runs twenty.
#SBATCH --job-name=hmhi
#SBATCH --cpus-per-task=2
#SBATCH --mem=6G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --output=hmhi-%A_%a.log
set -euo pipefail

list="${1:?usage: sbatch --array=0-N scripts/cluster/slurm_array.sh VIDEOS.txt OUTPUT [options of hmhi segment]}"
output="${2:?usage: sbatch --array=0-N scripts/cluster/slurm_array.sh VIDEOS.txt OUTPUT [options of hmhi segment]}"
shift 2
# The shard is SLURM_ARRAY_TASK_ID of SLURM_ARRAY_TASK_COUNT. exec: so that the signal before the end reaches it.
exec hmhi segment --list "$list" --output "$output" --time-limit 1800 "$@"
