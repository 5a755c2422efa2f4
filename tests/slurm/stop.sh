#!/usr/bin/env bash
# Ends what start.sh has begun in the folder $SLURM_SANDBOX.
folder=${SLURM_SANDBOX:?set SLURM_SANDBOX to the folder given to start.sh}
for file in d.pid ctld.pid munge/pid; do
    [ ! -s "$folder/$file" ] || kill "$(cat "$folder/$file")"
done
