#!/usr/bin/env bash
# Sets up, builds and runs every test: fast ones, slow ones, style and lint. What CI runs.
#
#   tests/run.sh                      everything, release build
#   tests/run.sh fast                 only what takes seconds
#   tests/run.sh slow                 only what takes longer (kill loops, 50,000-line parity, lint)
#   RETRO_PRESET=asan tests/run.sh    another preset: release, debug, asan, tsan
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${RETRO_PRESET:-release}
which=${1:-all}

bash deploy/local/setup.sh --dev
[ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset" -- --quiet

export OMP_WAIT_POLICY=passive
select=()
case $which in
  all) ;;
  fast) select=(-LE slow) ;;
  slow) select=(-L slow) ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
exec ctest --preset "$preset" --parallel 2 "${select[@]}"
