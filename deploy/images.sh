#!/usr/bin/env bash
# Builds the images retro-retriever, retro-shard, retro-generator, retro, retro-build, retro-proxy and retro-prometheus from
# deploy/Dockerfile.
#
#   images.sh                  everything in containers
#   images.sh --prebuilt       with the programs of build/release, built on this machine (Debian 12 too): minutes less
#   BASE=image VARIANT=cpu|cuda TAG=latest ENGINE=podman|docker can be set in the environment
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-podman}
arguments=(--build-arg "VARIANT=${VARIANT:-cpu}")
[ -z "${BASE:-}" ] || arguments+=(--build-arg "BASE=$BASE")
build() {  # STAGE IMAGE
  "$engine" build -q -f deploy/Dockerfile --target "$1" -t "$2" "${arguments[@]}" .
}
case ${1:-} in
  "") build compiled localhost/retro-programs >/dev/null ;;
  --prebuilt)
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    bash deploy/docker/collect.sh build/release/bin "${RETRO_DEPS:-$HOME/.cache/retro-deps}" "$folder/out" "${VARIANT:-cpu}"
    tar -C "$folder" -c out | "$engine" import - localhost/retro-programs >/dev/null ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
for image in retro-retriever retro-shard retro-generator retro retro-build retro-proxy retro-prometheus; do
  build "$image" "localhost/$image:${TAG:-latest}"
done
