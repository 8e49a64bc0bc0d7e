#!/usr/bin/env bash
# Makes what a deployment needs to begin with TLS and API keys: secrets.sh FOLDER [SERVICE=NAME ...]
#   ca.pem, ca.key              an authority; keep ca.key elsewhere
#   SERVICE.pem, SERVICE.key    of each SERVICE: for localhost, 127.0.0.1 and every NAME by which it is called (an argument each)
#   client.pem, client.key      for mutual TLS of clients, good for nothing else
#   admin|write|read.apikey     one API key each, for people
#   shards|generator.apikey     what routers and shards (admin) and generators (read) show each other
#   api-keys.json               their hashes, for --api-keys; yours to edit from then on
# What is there already stays: delete a .pem, or a .apikey, to have it and its pair made anew; a certificate with all of its NAMEs,
# and with ca.key back in its place. The entry of a key that is made when api-keys.json is there already is printed, to be put there
# by you, beside the old one for as long as that is used. Your own authority and keys are as good.
set -euo pipefail
usage() { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
[ $# -ge 1 ] || usage
umask 077
folder=$1; shift
declare -A names=()
for argument in "$@"; do
  [[ $argument =~ ^([a-z][a-z0-9-]*)=(.+)$ ]] || usage
  service=${BASH_REMATCH[1]} name=${BASH_REMATCH[2]}
  [[ $name =~ ^[0-9.]+$|: ]] && name=IP:$name || name=DNS:$name
  names[$service]=${names[$service]:-DNS:localhost,IP:127.0.0.1},$name
done
mkdir -p "$folder"
cd "$folder"

# Nothing is left half made: files get their names when they are whole, a certificate after its key: one that is there has its key.
make_certificate() { # make_certificate WHO CN REQ-ARGUMENT...
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out new.key
  openssl req -x509 -new -key new.key -subj "/CN=$2" -out new.pem "${@:3}"
  mv -f new.key "$1.key"
  mv -f new.pem "$1.pem"
}
sign() { # sign WHO USAGE [SUBJECT-ALT-NAMES]
  [ ! -s "$1.pem" ] || return 0
  [ -s ca.key ] || { echo "ca.key is missing: bring it back to $PWD, it is needed to sign $1.pem" >&2; exit 1; }
  make_certificate "$1" "retro $1" -days 365 -CA ca.pem -CAkey ca.key -extensions ours -config <(
    printf '%s\n' '[req]' 'distinguished_name = req' '[ours]' 'basicConstraints = critical, CA:FALSE' \
      'authorityKeyIdentifier = keyid' "extendedKeyUsage = $2" ${3:+"subjectAltName = $3"})
}
[ -s ca.pem ] || make_certificate ca "retro authority" -days 3650
sign client clientAuth
# Services are clients of one another.
for service in "${!names[@]}"; do sign "$service" serverAuth,clientAuth "${names[$service]}"; done

entries=() made=()
for key in admin:admin write:write read:read shards:admin generator:read; do
  name=${key%:*} is_new=
  if [ ! -s $name.apikey ]; then
    openssl rand -hex 32 | tr -d '\n' >new.apikey
    mv -f new.apikey $name.apikey
    is_new=1
  fi
  entry="  {\"name\": \"$name\", \"role\": \"${key#*:}\", \"sha256\": \"$(sha256sum <$name.apikey | cut -d' ' -f1)\"}"
  entries+=("$entry")
  [ -z "$is_new" ] || made+=("$entry")
done
one_a_line() { local IFS=$'\n'; sed '$!s/$/,/' <<<"$*"; }
if [ ! -s api-keys.json ]; then
  { echo '{"keys": ['; one_a_line "${entries[@]}"; echo ']}'; } >new.json
  mv -f new.json api-keys.json
elif [ ${#made[@]} != 0 ]; then
  { echo "To be put into $PWD/api-keys.json: in place of entries of the same names, or beside them under other names while the old keys are used:"; one_a_line "${made[@]}"; } >&2
fi
