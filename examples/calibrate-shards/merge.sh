#!/bin/sh
# Adds up the parts that shard.sh has written to the folder TRACES; fails if one of SHARDS is missing.
set -eu
index=0
while [ "$index" -lt "$SHARDS" ]; do
  set -- "$@" "$TRACES/shard-$index.json"
  index=$((index + 1))
done
exec ${SMOOTHCC:-npx smoothcc} merge "$@" -o "$TRACES/trace.json"
