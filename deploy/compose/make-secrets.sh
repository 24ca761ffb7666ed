#!/bin/sh
# Makes the passwords and tokens of compose.yaml, once: files in secrets/, which are mounted into the containers, and .env
# for Iggy, which takes its password from a variable only. Iggy, InfluxDB and Grafana keep those of their first start.
set -eu
cd "$(dirname "$0")"
umask 077
# Closed to other users of this machine; the files themselves are read by the containers' users.
mkdir -p secrets
for name in iggy-password influx-password influx-token grafana-password http-token; do
    [ -s "secrets/$name" ] || head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "secrets/$name"
    chmod 444 "secrets/$name"
done
[ -s .env ] || printf 'IGGY_PASSWORD=%s\n' "$(cat secrets/iggy-password)" > .env
