# Where the local set-up keeps things; sourced by up.sh and down.sh. Each can be set from outside.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
data=${RETRO_DATA:-${XDG_DATA_HOME:-$HOME/.local/share}/retro}
preset=${RETRO_PRESET:-release}
retriever_port=${RETRO_RETRIEVER_PORT:-7700}
generator_port=${RETRO_GENERATOR_PORT:-7800}
bin=$root/build/$preset/bin
export RETRO_RETRIEVER=127.0.0.1:$retriever_port RETRO_GENERATOR=127.0.0.1:$generator_port
export OMP_WAIT_POLICY=passive

running() { # running NAME: its process is alive and is ours
  local pid
  pid=$(cat "$data/run/$1.pid" 2>/dev/null) && [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$bin/$1" ]
}
