#!/usr/bin/env bash
# What docker-compose.yml mounts, made in deploy/compose/run: secrets, a cluster file, and the demo model
# (or a copy of the one that RETRO_MODEL names). What is there already stays.
#   prepare.sh [NAME...]     names, or addresses, by which clients call the proxy from other machines, for its certificate: all of
#                            them, whenever that is made
# As root, or, for podman without root, as: podman unshare bash deploy/compose/prepare.sh
set -euo pipefail
[ "$(id -u)" = 0 ] || { sed -n '6s/^# //p' "$0" >&2; exit 2; }
[ -z "${RETRO_MODEL:-}" ] || RETRO_MODEL=$(realpath "$RETRO_MODEL")
cd "$(dirname "$0")"
mkdir -p run/cluster run/model
chmod 755 run run/cluster run/model

# run/secrets is the operator's; run/secrets-of/SERVICE what that service mounts, its and nobody else's to read.
bash ../secrets.sh run/secrets router=router generator=generator shard=shard-{0,1}{a,b} "${@/#/proxy=}" proxy=localhost
# A key that router, shards and generator show each other is given to them once all know it.
for name in shards generator; do
  grep -qi "$(sha256sum <run/secrets/$name.apikey | cut -d' ' -f1)" run/secrets/api-keys.json ||
    { echo "run/secrets/$name.apikey is new: put its entry beside the old one, under a name of its own, and say this again" >&2; exit 1; }
done
(umask 077; grep -oE '\b[0-9a-fA-F]{64}\b' run/secrets/api-keys.json >run/secrets/keys.sha256 || [ $? = 1 ])
# Services look at their files every second, so that these come whole and close upon one another: by renames.
give() { # give SERVICE [AS=]FILE...
  local folder=run/secrets-of/$1 new=run/secrets-of/.new file; shift
  rm -rf $new
  mkdir -p "$folder" $new
  chmod 755 run/secrets-of "$folder" $new
  for file in "$@"; do install -m 400 -o 10001 -g 10001 "run/secrets/${file#*=}" "$new/${file%%=*}"; done
  mv -f $new/* "$folder"
}
for shard in shard-0a shard-0b shard-1a shard-1b; do give $shard shard.pem shard.key api-keys.json ca.pem shards.apikey; done
give router router.pem router.key api-keys.json ca.pem shards.apikey
give generator generator.pem generator.key api-keys.json ca.pem generator.apikey
give proxy proxy.pem proxy.pem.key=proxy.key keys.sha256 ca.pem
give standalone router.pem router.key api-keys.json
rmdir run/secrets-of/.new
[ -z "${SUDO_UID:-}" ] || chown -R "$SUDO_UID" run/secrets

if [ ! -f run/cluster/cluster.json ]; then
  cat >run/cluster/cluster.json <<JSON
{"version": 1, "cluster": "compose", "store_id": "$(openssl rand -hex 16)", "min_in_sync": 1, "shards": [
  {"slots": [0, 2047], "epoch": 1, "primary": "0a",
   "replicas": [{"name": "0a", "address": "shard-0a:7710"}, {"name": "0b", "address": "shard-0b:7710"}]},
  {"slots": [2048, 4095], "epoch": 1, "primary": "1a",
   "replicas": [{"name": "1a", "address": "shard-1a:7710"}, {"name": "1b", "address": "shard-1b:7710"}]}]}
JSON
fi
chown -R 10001:10001 run/cluster  # the shards write it
if [ ! -f run/model/config.json ]; then
  if [ -n "${RETRO_MODEL:-}" ]; then
    cp "$RETRO_MODEL"/* run/model/
  else
    ../../trainer/demo/model/unpack.sh run/model
  fi
  chmod 644 run/model/*
fi
