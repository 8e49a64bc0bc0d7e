#!/usr/bin/env bash
# Trains the demo model, and plain decoders to compare it with, and evaluates them on a GPU machine that has torch 2.11 with CUDA 13
# (Python 3.12) and nothing of ours, in commands of limited length with little to carry. Two halves, since that machine cannot build:
#   trainer/gpu/train.sh pack CORPUS [FOLDER]   here: tokenises the folder CORPUS (train, versions, valid, versions_valid, test and demo
#                                               .jsonl.zst) and fills FOLDER/1, FOLDER/2, ... (default build/gpu-train), each at most
#                                               60 MiB: 1 with programs, embedder and held-out texts, the others with the training text
#   bash FOLDER/N/train.sh take STORE           there, for every N: keeps the part in STORE, which must outlive the command
#   bash STORE/train.sh go OUT [SECONDS] [DEVICE]
#                                               there: goes on with what can be done for SECONDS (default 540) on DEVICE (default cuda);
#                                               with part 1 alone that is a try of everything on little text. To be said again until
#                                               OUT/figures.jsonl has {"what": "end"}
#   bash STORE/train.sh fetch OUT MODEL [FIRST] there: brings back a model that is trained (curve and fp16 weights) in pieces of at most
#                                               14 MiB, four of them from the FIRST (0, then 4, ...)
#   trainer/gpu/train.sh join FOLDER OUT...     here: the models of all the OUTs, whole again, into FOLDER
# SECONDS_TO_TRAIN (default 420) is the time that all models together may train. `TOY=1 train.sh pack CORPUS` (to build/gpu-train-toy) and
# `go OUT 300 cpu` are the rehearsal, on a few documents.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage() { sed -n '2,18s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }

part_mib_max=60

pack() {
  [ $# -ge 1 ] || usage
  local corpus root folder part size program
  corpus=$(cd "$1" && pwd)
  root=$(cd "$here/../.." && pwd)
  folder=${2:-$root/build/gpu-train${TOY:+-toy}}
  cd "$root"
  . deploy/local/pack_libraries.sh
  [ -f build/release/build.ninja ] || cmake --preset release >/dev/null
  ninja -C build/release --quiet retro-train retro-model retro-eval
  mkdir -p "$folder/store"/{bin,lib}
  folder=$(cd "$folder" && pwd)
  for program in retro-train retro-model retro-eval; do strip -o "$folder/store/bin/$program" "build/release/bin/$program"; done
  cp "$(command -v zstd)" "$folder/store/bin/"
  pack_libraries "$folder/store"
  cp common/tokenizer/retro-16k.model "$here"/{train.sh,on_gpu.py,fp16.py,models.json} "$folder/store/"
  git rev-parse HEAD >"$folder/store/commit"
  python3 "$here/pack_data.py" "$corpus" "$folder" $part_mib_max "${TOY:-}"
  for part in "$folder"/[0-9]*; do
    cp "$here/train.sh" "$part/"
    size=$(du -sm --apparent-size "$part" | cut -f1)
    [ "$size" -le $part_mib_max ] || { echo "train.sh: $part has $size MiB, at most $part_mib_max may travel" >&2; exit 1; }
    echo "$part: $size MiB"
  done
}

# Part 1 is a folder of its own with what unpacks the others.
take() { # take STORE
  mkdir -p "$1"
  cp -r "$here/." "$1/"
  if [ -f "$here/programs.tar.zst" ]; then
    LD_LIBRARY_PATH=$1/unpack "$1/unpack/zstd" -dc "$1/programs.tar.zst" | tar -C "$1" -xf -
  fi
  if [ -f "$1/data_bytes" ] && [ "$(cat "$1"/data.[0-9][0-9] 2>/dev/null | wc -c)" = "$(cat "$1/data_bytes")" ]; then
    cat "$1"/data.[0-9][0-9] | LD_LIBRARY_PATH=$1/unpack "$1/unpack/zstd" -dc --long=27 | tar -C "$1" -xf -
  fi
}

# The pieces of a model that were fetched, in order, are one tar file.
join() { # join FOLDER OUT...
  local folder=$1 model
  shift
  mkdir -p "$folder"
  for model in $(find "$@" -name '*.tar.[0-9][0-9]' -printf '%f\n' | sed 's/\.tar\..*//' | sort -u); do
    find "$@" -name "$model.tar.[0-9][0-9]" -printf '%f %p\n' | sort | cut -d' ' -f2 | xargs cat | tar -C "$folder" -xf -
    echo "$folder/$model"
  done
}

case ${1:-} in
  pack) shift; pack "$@" ;;
  take) shift; [ $# -eq 1 ] || usage; take "$1" ;;
  go) shift; [ $# -ge 1 ] || usage; exec python3 "$here/on_gpu.py" "$here" "$@" ;;
  fetch) shift; [ $# -eq 2 ] || [ $# -eq 3 ] || usage; exec python3 "$here/on_gpu.py" "$here" --fetch "$@" ;;
  join) shift; [ $# -ge 2 ] || usage; join "$@" ;;
  *) usage ;;
esac
