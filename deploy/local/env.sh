# Where the local set-up keeps things, and how its services are told apart; sourced by up.sh and down.sh. Each can be set from outside.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
data=${RETRO_DATA:-${XDG_DATA_HOME:-$HOME/.local/share}/retro}
preset=${RETRO_PRESET:-release}
retriever_port=${RETRO_RETRIEVER_PORT:-7700}
generator_port=${RETRO_GENERATOR_PORT:-7800}
bin=$root/build/$preset/bin
export RETRO_RETRIEVER=127.0.0.1:$retriever_port RETRO_GENERATOR=127.0.0.1:$generator_port
export OMP_WAIT_POLICY=passive

program_of() { # program_of NAME: the program that its process runs; ends in " (deleted)" if it was built anew since
  local pid
  pid=$(cat "$data/run/$1.pid" 2>/dev/null) && readlink "/proc/$pid/exe" 2>/dev/null
}
running() { # running NAME: its process is alive and is ours
  case $(program_of "$1") in "$bin/$1" | "$bin/$1 (deleted)") ;; *) return 1 ;; esac
}
stop() { # stop NAME: asks it to end, waits, insists
  local pid
  running "$1" || return 0
  pid=$(cat "$data/run/$1.pid")
  kill -TERM "$pid"
  for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  if kill -0 "$pid" 2>/dev/null; then echo "$1 did not end within 15 s; killing it" >&2; kill -KILL "$pid"; fi
  rm -f "$data/run/$1.pid"
  echo "$1 stopped"
}
