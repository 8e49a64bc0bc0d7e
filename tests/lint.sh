#!/usr/bin/env bash
# clang-format on every source, clang-tidy (with -Wthread-safety) on every translation unit. A unit that was clean is not looked at
# again until it, one of the headers that it includes, its flags or the checks change.
#   tests/lint.sh BUILD_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
deps=${RETRO_DEPS:-$HOME/.cache/retro-deps}
cache=$deps/lint-cache
clang_tidy=$deps/venv-tools/bin/clang-tidy
mkdir -p "$cache"

mapfile -t sources < <(git ls-files -co --exclude-standard '*.cc' '*.h')
clang-format --dry-run --Werror "${sources[@]}"
echo "clang-format: ${#sources[@]} files clean"

"$deps"/venv-tools/bin/buf lint proto
echo "buf lint: clean"

# One line a unit: its key (hash of all that its findings depend on) and its name. clang can't read g++'s precompiled headers, so the
# flags are rewritten to include the same header from a folder where none is precompiled.
mkdir -p "$build/lint"
python3 - "$build" "$("$clang_tidy" --version)" >"$build/lint/units" <<'PY'
import hashlib, json, os, re, shutil, subprocess, sys
build = sys.argv[1]
root = os.getcwd() + "/"
deps, current = {}, None
for line in subprocess.run(["ninja", "-C", build, "-t", "deps"], capture_output=True, text=True).stdout.splitlines():
    if line and not line[0].isspace():
        current = deps.setdefault(line.split(":")[0], [])
    elif line.strip():
        current.append(os.path.normpath(os.path.join(build, line.strip())))
checks = open(".clang-tidy").read() + sys.argv[2]
units = json.load(open(build + "/compile_commands.json"))
for unit in units:
    header = re.search(r"-include (\S+/(\w+)\.dir/cmake_pch\.hxx)", unit["command"])
    if header:
        plain = os.path.abspath(f"{build}/lint/{header.group(2)}.hxx")
        shutil.copyfile(header.group(1), plain)
        unit["command"] = unit["command"].replace(header.group(1), plain)
json.dump(units, open(build + "/lint/compile_commands.json", "w"))
seen = set()
for unit in units:
    name = os.path.relpath(unit["file"], root)
    if name in seen or name.startswith(("..", "build/")):  # a source of several programs is the same in each
        continue
    seen.add(name)
    key = hashlib.sha256((checks + unit["command"].replace(root, "").replace(root[:-1], ".")).encode())  # another clone's findings are the same
    if name.startswith("tests/"):
        key.update(open("tests/.clang-tidy", "rb").read())
    for path in [name] + sorted(d for d in deps.get(unit.get("output", ""), []) if not os.path.isabs(d) or d.startswith(root)):
        if os.path.exists(path) and not os.path.relpath(path, root).startswith("build/"):
            key.update(open(path, "rb").read())
    print(key.hexdigest(), name)
PY

check() {
  local key=$1 file=$2 log
  [ -e "$cache/$key" ] && return 0
  log=$(mktemp)
  if "$clang_tidy" -p "$build/lint" --quiet --extra-arg=-Wthread-safety --extra-arg="$openmp" --extra-arg=-Wno-ignored-gch --extra-arg=-Wno-unknown-warning-option "$file" >"$log" 2>/dev/null; then
    touch "$cache/$key"; rm "$log"
  else
    grep -vE '^[0-9]+ warnings' "$log"; echo "clang-tidy: $file has findings"; rm "$log"; return 1
  fi
}
export -f check; # The wheel has clang's own headers but for OpenMP's.
openmp=-idirafter$(dirname "$(gcc -print-file-name=include/omp.h)")
export cache build clang_tidy openmp
xargs -a "$build/lint/units" -P "$(nproc)" -L 1 bash -c 'check "$0" "$1"' || { echo "clang-tidy: see above"; exit 1; }
echo "clang-tidy: $(wc -l <"$build/lint/units") units clean"
