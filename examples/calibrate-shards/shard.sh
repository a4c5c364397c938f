#!/bin/sh
# Runs one part of a calibration. MODEL: as for `smoothcc calibrate`; SHARDS: the number of parts; TRACES: a folder that all parts see.
set -eu
index=${JOB_COMPLETION_INDEX:-${SLURM_ARRAY_TASK_ID:?neither Kubernetes nor Slurm has set the number of the part}}
exec ${SMOOTHCC:-npx smoothcc} calibrate "$MODEL" --shard "$((index + 1))/$SHARDS" --resume -o "$TRACES/shard-$index.json" "$@"
