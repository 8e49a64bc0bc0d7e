#!/usr/bin/env bash
# The fault run: run.sh [SECONDS [SEED]] (60 and a seed that it prints). Two routers, two shards of two replicas and two generators, all with
# TLS, under writes, ingest, reads, searches and generations, while processes are killed, stopped and ended, lines between them delayed and
# cut, disks filled, certificates expired and replicas promoted; an oracle over everything acknowledged. With RETRO_BUILD that build is
# taken as it is. Disks are filled where a file system can be mounted. run.sh --steady [--embedder FOLDER] SECONDS [SEED]: the same without
# a fault and at a modest pace; each minute a JSON line of every process's resident memory and of the latencies. Memory must not grow.
# run.sh --rolling: no faults, but every process is restarted in turn, while clients read and write; no call may fail.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${RETRO_BUILD:-}" ]; then
  bash deploy/local/setup.sh --dev
  export RETRO_BUILD=$PWD/build/release
  [ -f "$RETRO_BUILD/build.ninja" ] || cmake --preset release >/dev/null
  cmake --build "$RETRO_BUILD" --target retro retro-model retro-shard retro-retriever retro-generator -- --quiet
fi
deps=${RETRO_DEPS:-$HOME/.cache/retro-deps}
stubs=$RETRO_BUILD/python_stubs
mkdir -p "$stubs"
"$deps/venv-tools/bin/python" -m grpc_tools.protoc -I proto -I "$(echo "$deps"/venv/lib/python3*/site-packages)" --python_out="$stubs" \
  --grpc_python_out="$stubs" retro/retriever/v1/{document,filter,retriever}.proto retro/generator/v1/generator.proto google/rpc/{error_details,status}.proto
mounts=(unshare --mount)
[ "$(id -u)" = 0 ] || mounts+=(--map-root-user)
"${mounts[@]}" true 2>/dev/null || mounts=()
# Without: its handlers of forks meddle with the processes that are started.
export GRPC_ENABLE_FORK_SUPPORT=false
PYTHONPATH=$stubs:tests/e2e exec "${mounts[@]}" "$deps/venv-tools/bin/python" -B tests/chaos/chaos.py "$@"
