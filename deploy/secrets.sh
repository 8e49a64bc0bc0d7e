#!/usr/bin/env bash
# Makes what a deployment needs to begin with TLS and API keys: secrets.sh FOLDER [NAME ...]
#   ca.pem, ca.key            an authority; keep ca.key elsewhere
#   server.pem, server.key    for all services: localhost, 127.0.0.1 and every NAME, as they are called
#   client.pem, client.key    for mutual TLS of clients
#   admin|write|read.apikey   one API key each, for people
#   shards|generator.apikey   what routers and shards (admin) and generators (read) show each other
#   api-keys.json             their hashes, for --api-keys; yours to edit from then on
# What is there already stays: delete a .pem, or a .apikey, to have it and its pair made anew. The entry of a key that is made when api-keys.json
# is there already is printed, to be put there by you. Your own authority and keys are as good.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
umask 077
folder=$1; shift
mkdir -p "$folder"
cd "$folder"
names="DNS:localhost,IP:127.0.0.1"
for name in "$@"; do [[ $name =~ ^[0-9.]+$|: ]] && names+=",IP:$name" || names+=",DNS:$name"; done
days=365
new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

if [ ! -f ca.pem ]; then
  new_key ca.key
  openssl req -x509 -new -key ca.key -days $((10 * days)) -subj "/CN=retro authority" -out ca.pem
fi
for who in server client; do
  [ -f $who.pem ] && continue
  new_key $who.key
  openssl req -new -key $who.key -subj "/CN=retro $who" -out $who.csr
  openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days $days \
    -extfile <(echo "subjectAltName=$names") -out $who.pem 2>/dev/null
  rm $who.csr
done
entries=() made=()
for key in admin:admin write:write read:read shards:admin generator:read; do
  name=${key%:*} is_new=
  [ -f $name.apikey ] || { openssl rand -hex 32 | tr -d '\n' >$name.apikey; is_new=1; }
  entry="  {\"name\": \"$name\", \"role\": \"${key#*:}\", \"sha256\": \"$(sha256sum <$name.apikey | cut -d' ' -f1)\"}"
  entries+=("$entry")
  [ -z "$is_new" ] || made+=("$entry")
done
one_a_line() { local IFS=$'\n'; sed '$!s/$/,/' <<<"$*"; }
if [ ! -f api-keys.json ]; then
  { echo '{"keys": ['; one_a_line "${entries[@]}"; echo ']}'; } >api-keys.json
elif [ ${#made[@]} != 0 ]; then
  { echo "To be put into $PWD/api-keys.json:"; one_a_line "${made[@]}"; } >&2
fi
