#!/usr/bin/env bash
# Puts the demo model together, whose weights are here in pieces that every Git host takes: unpack.sh FOLDER
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2s/^# //p' "$0"; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
cp "$here/config.json" "$here/README.md" "$1/"
cp "$here/../../../common/tokenizer/retro-16k.model" "$1/tokenizer.model"
cat "$here"/model.safetensors.[0-9] >"$1/model.safetensors.new"
mv "$1/model.safetensors.new" "$1/model.safetensors"
