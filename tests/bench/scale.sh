#!/usr/bin/env bash
# How a store of one retriever grows: for each size median and p99 of a search with a vector, over gRPC, one after the other, at
# recall@10 = 0.95 (by interpolation between efforts), memory, disk, time to build it and time until it serves, also when nothing
# of it is in the page cache. Promised: the median grows no faster than the square root of the size, and a retriever with a
# million chunks serves within 10 s of its start. The index's memory a vector has a row too.
#   scale.sh [prepare] [--sizes "N N ..."] [-- what vectors/make.sh takes]     "100000 1000000 4000000"
# Vectors and stores are kept in a cache: "prepare" makes them, so that what is measured on a quiet machine takes minutes. Four
# millions want 15 GB of disk and 10 GB of memory. The time that building took is as good as the machine was quiet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ninja -C "$RETRO_BUILD" search_bench store_fill retro retro-retriever >&2
. tests/bench/store/make.sh
sizes="100000 1000000 4000000" prepare=
if [ "${1:-}" = prepare ]; then prepare=1; shift; fi
if [ "${1:-}" = --sizes ]; then sizes=$2; shift 2; fi
folders=()
for size in $sizes; do
  folders+=("$(bench_vectors --vectors "$size" "${@:2}")")
  bench_store "${folders[-1]}"
done
[ -n "$prepare" ] || "$RETRO_PYTHON" tests/bench/scale/scale_bench.py --build "$RETRO_BUILD" --model "${models[0]}" "${folders[@]}"
