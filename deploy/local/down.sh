#!/usr/bin/env bash
# Stops what up.sh started; documents and model stay. With --erase the data folder goes too.
set -euo pipefail
. "$(dirname "$0")/env.sh"
for name in retro-generator retro-retriever; do
  if running "$name"; then
    pid=$(cat "$data/run/$name.pid")
    kill -TERM "$pid"
    for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    if kill -0 "$pid" 2>/dev/null; then echo "$name did not end within 15 s; killing it" >&2; kill -KILL "$pid"; fi
    echo "$name stopped"
  fi
  rm -f "$data/run/$name.pid"
done
if [ "${1:-}" = --erase ]; then rm -rf "$data"; echo "$data erased"; fi
