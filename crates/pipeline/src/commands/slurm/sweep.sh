#!/usr/bin/env bash
# A sweep as three Slurm jobs: the plan; a job array of @N@ tasks, one a shard, after it; the tables when all shards are done.
#
#     bash @SCRIPT@ [options of sbatch for the array]
#
# Whatever ends a task, it may be put into the queue again: finished parts are kept, and it goes on from there. At its time
# limit a task finishes the part at hand and puts itself into the queue again.
#
#SBATCH --job-name=@NAME@
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
set -euo pipefail

# --- What your cluster asks for. ---------------------------------------------------------------------------------------------
# Options of each job, such as --account, --partition, --time, --mem.
plan_options=()
probe_options=()    # with GPUs: (--gres=gpu:1), one for each of the run file's `devices`
join_options=()
# module load cuda
pipeline=(@PIPELINE@)
# In the container that is described beside this file; bind the folders of corpora, checkpoints and output:
# pipeline=(apptainer exec --nv --bind /scratch @FOLDER@/pipeline.sif pipeline)
# ------------------------------------------------------------------------------------------------------------------------------

script=@SCRIPT@
log=@LOG@
run_file=@FILE@
out=@OUT@
n=@N@

submit() {
    local plan probe join
    # A job whose dependency has failed is cancelled: it would wait for ever.
    local each=(--parsable --output="$log" --kill-on-invalid-dep=yes)
    plan=$(sbatch "${each[@]}" "${plan_options[@]}" --job-name=@NAME@-plan "$script" plan)
    probe=$(sbatch "${each[@]}" "${probe_options[@]}" "$@" --job-name=@NAME@-probe --array="0-$((n - 1))" \
        --dependency="afterok:${plan%%;*}" "$script" probe)
    join=$(sbatch "${each[@]}" "${join_options[@]}" --job-name=@NAME@-join \
        --dependency="afterok:${probe%%;*}" "$script" join)
    echo "plan ${plan%%;*}, probe ${probe%%;*} ($n tasks), join ${join%%;*}; logs in" @LOGS@
}

# Kernels are compiled once a node, on its own disk: many tasks that write to one home folder would wait for one another. The
# hub's cache stays where it is.
use_local_caches() {
    export HF_HUB_CACHE="${HF_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/hub}"
    export XDG_CACHE_HOME="${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/memorization-$(id -u)"
    export CUDA_CACHE_PATH="$XDG_CACHE_HOME/nv"
    mkdir -p "$CUDA_CACHE_PATH"
    # Inside a clone of the repository they would go to its target folder.
    cd "$XDG_CACHE_HOME"
}

# Waits for a program that is told when the time is up; 130 says that it ended early and cleanly.
run() {
    local child code=0
    "$@" &
    child=$!
    trap 'kill -TERM "$child" 2> /dev/null' TERM
    wait "$child" || code=$?
    # The signal ends the first wait, not the program.
    while kill -0 "$child" 2> /dev/null; do
        code=0
        wait "$child" || code=$?
    done
    trap - TERM
    return "$code"
}

# Says in the log what follows from a failure, and ends with its code.
failed() {
    echo "$1 failed with exit code $2: $3" >&2
    exit "$2"
}

case "${1:-}" in
    plan)
        use_local_caches
        run "${pipeline[@]}" run "$run_file" --out "$out" --only plan \
            || failed "the plan" $? "Slurm cancels the jobs after it; mend the cause and submit again"
        ;;
    probe)
        use_local_caches
        code=0
        # Its number stands here, as Slurm's variables are those of the last array that was submitted.
        run "${pipeline[@]}" run "$run_file" --out "$out" --shard "$SLURM_ARRAY_TASK_ID/$n" --keep-going || code=$?
        if [ "$code" = 130 ]; then
            scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
            exit "$code"
        fi
        [ "$code" = 0 ] || failed "shard $SLURM_ARRAY_TASK_ID of $n" "$code" \
            "Slurm cancels the job that makes the tables; mend the cause and submit again, finished parts are kept"
        ;;
    join)
        use_local_caches
        run "${pipeline[@]}" run "$run_file" --out "$out" --only join || failed "the join" $? "no table was made"
        run "${pipeline[@]}" run "$run_file" --out "$out" --only analyse \
            || failed "the analysis" $? "\`memorization\` is there, the tables of the analysis are not"
        ;;
    *) submit "$@" ;;
esac
