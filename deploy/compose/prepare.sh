#!/usr/bin/env bash
# What deploy/docker-compose.yml mounts, made in deploy/compose/run: secrets, a cluster file, and the demo model
# (or a copy of the one that RETRO_MODEL names). What is there already stays.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p run/cluster run/model
bash ../secrets.sh run/secrets router generator shard-0a shard-0b shard-1a shard-1b
cat run/secrets/server.pem run/secrets/server.key >run/secrets/proxy.pem
if [ ! -f run/cluster/cluster.json ]; then
  cat >run/cluster/cluster.json <<JSON
{"version": 1, "cluster": "compose", "store_id": "$(openssl rand -hex 16)", "min_in_sync": 1, "shards": [
  {"slots": [0, 2047], "epoch": 1, "primary": "0a",
   "replicas": [{"name": "0a", "address": "shard-0a:7710"}, {"name": "0b", "address": "shard-0b:7710"}]},
  {"slots": [2048, 4095], "epoch": 1, "primary": "1a",
   "replicas": [{"name": "1a", "address": "shard-1a:7710"}, {"name": "1b", "address": "shard-1b:7710"}]}]}
JSON
fi
if [ ! -f run/model/config.json ]; then
  if [ -n "${RETRO_MODEL:-}" ]; then
    cp "$RETRO_MODEL"/* run/model/
  else
    ../../trainer/demo/model/unpack.sh run/model
  fi
fi
# The services run as user 10001, the proxy as haproxy: the folder is theirs to read, and the cluster file to write.
chmod 755 run run/secrets run/model run/cluster
chmod 644 run/secrets/* run/model/*
chmod 600 run/secrets/ca.key
chown -R 10001:10001 run/cluster
