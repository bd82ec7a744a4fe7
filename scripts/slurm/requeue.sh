# Sourced by the jobs here: passes the signal before a job's end on, and submits the job again where it was stopped.
# shellcheck shell=bash

# Runs a command that stops and saves at SIGTERM, with exit code 143. SLURM sends SIGTERM to this shell before the time
# limit (--signal=B:TERM@...) and where the job is preempted; the job then goes back to the queue under its number.
# Where SLURM has put it there itself, as it does for a preempted job, scontrol refuses, and that is no error.
run_or_requeue() {
    local child code
    "$@" &
    child=$!
    trap 'kill -TERM "$child" 2>/dev/null || true' TERM
    code=0
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do # the signal ended the wait, and not yet the command
        code=0
        wait "$child" || code=$?
    done
    trap - TERM
    if [[ "$code" == 143 ]]; then
        echo "stopped before its end; back to the queue" >&2
        scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}" ||
            echo "not requeued by this script: SLURM has done so, or submit the job again" >&2
    fi
    return "$code"
}

# Trains with script $1 (train.sh or finetune.sh) on all nodes of the job: one task a node, which starts one process for
# each GPU. Goes on where an earlier run of this job stopped.
train_on_all_nodes() {
    export SLURM_TRAIN_SCRIPT="$1"
    shift
    MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
    export MASTER_ADDR MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}" NNODES="$SLURM_JOB_NUM_NODES"
    # shellcheck disable=SC2016 # each task has a SLURM_PROCID of its own
    run_or_requeue srun --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c \
        'NODE_RANK="$SLURM_PROCID" exec bash "scripts/$SLURM_TRAIN_SCRIPT" "$@" --resume auto' train "$@"
}
