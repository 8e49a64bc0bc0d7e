#!/usr/bin/env bash
# Prepares data, trains and evaluates on a GPU machine that has torch 2.11 with CUDA 13 (Python 3.12) and nothing of ours, in commands
# of limited length with little to carry. Two halves, since that machine cannot build:
#   trainer/gpu/train.sh pack CORPUS [FOLDER]   here: builds and fills FOLDER/1, FOLDER/2, ... (default build/gpu-train), each at
#                                               most 60 MiB, with the corpus of the folder CORPUS (train, versions, valid,
#                                               versions_valid and demo .jsonl.zst)
#   bash FOLDER/N/train.sh take STORE           there, for every N: keeps the part in STORE, which must outlive the command
#   bash STORE/train.sh go OUT [SECONDS] [DEVICE]
#                                               there: goes on with what is to be done for SECONDS (default 540) on DEVICE (default
#                                               cuda); to be said again until OUT/figures.jsonl has {"what": "end"}
# SECONDS_TO_TRAIN (default 600) is the time in all that the model may train, half of it its twin without retrieval. OUT gets
# figures.jsonl, the curves, and the weights as fp16 in files of at most 14 MiB; join them: cat model.safetensors.* >model.safetensors.
# `TOY=1 train.sh pack CORPUS` and `go OUT 300 cpu` are the rehearsal, on a few documents.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage() { sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }

part_mib_max=60

# Libraries that a program needs and a machine with torch may lack: all but torch's own and the C and C++ run time.
pack_libraries() { # pack_libraries FOLDER
  ldd "$1"/bin/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/lib(torch.*|c10.*|cud.*|cupti.*|nv.*|gomp.*|c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so' | xargs -r cp -L -t "$1/lib"
}

pack() {
  [ $# -ge 1 ] || usage
  local corpus root folder part size
  corpus=$(cd "$1" && pwd)
  root=$(cd "$here/../.." && pwd)
  folder=${2:-$root/build/gpu-train}
  cd "$root"
  [ -f build/release/build.ninja ] || cmake --preset release >/dev/null
  ninja -C build/release --quiet retro-train retro-model
  rm -rf "$folder"
  mkdir -p "$folder"/1/{bin,lib}
  for program in retro-train retro-model; do strip -o "$folder/1/bin/$program" "build/release/bin/$program"; done
  pack_libraries "$folder/1"
  cp common/tokenizer/retro-16k.model "$folder/1/"
  cp "$here/on_gpu.py" "$here/fp16.py" "$here/models.json" "$folder/1/"
  git rev-parse HEAD >"$folder/1/commit"
  python3 "$here/pack_data.py" "$corpus" "$folder" $part_mib_max "${TOY:-}"
  for part in "$folder"/*; do
    cp "$here/train.sh" "$part/"
    size=$(du -sm --apparent-size "$part" | cut -f1)
    [ "$size" -le $part_mib_max ] || { echo "train.sh: $part has $size MiB, at most $part_mib_max may travel" >&2; exit 1; }
    echo "$part: $size MiB"
  done
}

case ${1:-} in
  pack) shift; pack "$@" ;;
  take)
    [ $# -eq 2 ] || usage
    mkdir -p "$2"
    cp -r "$here/." "$2/"
    if [ -f "$here/programs.tar.gz" ]; then tar -C "$2" -xzf "$here/programs.tar.gz"; fi
    ls "$2" ;;
  go) shift; [ $# -ge 1 ] || usage; exec python3 "$here/on_gpu.py" "$here" "$@" ;;
  *) usage ;;
esac
