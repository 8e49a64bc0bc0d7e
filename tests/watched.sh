#!/usr/bin/env bash
# What ctest runs: a test's command. Shortly before ctest's patience with it ends, prints where every thread of its processes is.
#   tests/watched.sh SECONDS COMMAND...
set -uo pipefail
set -m   # a process group of its own, and the signals that a shell keeps from what runs in the background
seconds=$1; shift

descendants() { local child; for child in $(pgrep -P "$1"); do echo "$child"; descendants "$child"; done; }

"$@" &
command=$!
trap 'kill -- -$command 2>/dev/null; exit 1' INT TERM
sleep "$seconds" >/dev/null 2>&1 &
patience=$!
wait -n "$command" "$patience"
if kill -0 "$command" 2>/dev/null && ! kill -0 "$patience" 2>/dev/null; then
  for process in "$command" $(descendants "$command"); do
    echo "== hangs: process $process, $(tr '\0' ' ' <"/proc/$process/cmdline")"
    gdb -p "$process" -batch -nx -ex "thread apply all bt 30" 2>/dev/null | grep -E '^(Thread|#)'
  done
fi
wait "$command"
code=$?
kill "$patience" 2>/dev/null
exit $code
