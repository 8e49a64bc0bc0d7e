#!/usr/bin/env bash
# Runs a benchmark: tests/bench/run.sh NAME [its arguments]; without a name, lists them.
# Each is a file NAME.sh here that says in its head what it measures. It prints one JSON line a row, with at least
#   bench, ours, peer, peer_name   what was measured and against whom
#   ratio, pass                    above 1: we are better; whether the row is what is promised
#   valid                          false: the peer ran far below its usual self (peer_usual), so the machine was not quiet
# Exit status 1 if a valid row does not pass, 3 if none failed but a row is not valid.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

name=${1:-}
if [ -z "$name" ] || [ ! -f "$here/$name.sh" ] || [ "$name" = run ]; then
  echo "usage: tests/bench/run.sh NAME, one of:" >&2
  for file in "$here"/*.sh; do [ "$file" = "$here/run.sh" ] || echo "  $(basename "$file" .sh)" >&2; done
  exit 2
fi
shift

bash "$root/deploy/local/setup.sh" --bench >&2
cd "$root"
[ -f build/release/build.ninja ] || cmake --preset release >&2
export RETRO_DEPS=${RETRO_DEPS:-$HOME/.cache/retro-deps}
export RETRO_BUILD=$root/build/release
export RETRO_PYTHON=$RETRO_DEPS/venv-tools/bin/python
exec bash "$here/$name.sh" "$@"
