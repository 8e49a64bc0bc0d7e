#!/usr/bin/env bash
# Stops what up.sh started; documents stay. With --erase the data folder goes too.
set -euo pipefail
. "$(dirname "$0")/env.sh"
stop retro-generator
stop retro-retriever
if [ "${1:-}" = --erase ]; then rm -rf "$data"; echo "$data erased"; fi
