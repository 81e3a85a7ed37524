#!/usr/bin/env bash
# Runs a command with DATABASE_URL pointing at a throw-away PostgreSQL that lives as long as the command. It has the roles and an empty database:
#   scripts/test-postgres.sh cargo nextest run -p store
source "$(dirname "$0")/lib.sh"
[ $# -gt 0 ] || die "usage: test-postgres.sh COMMAND…"

bin=$(postgres_bin) || die "PostgreSQL is missing: scripts/install-tools.sh test installs it"
folder=$(mktemp -d /tmp/ringfence-pg.XXXXXX)
# PostgreSQL refuses to run as root.
unprivileged=()
if [ "$(id -u)" = 0 ]; then
    account=$(id -u postgres >/dev/null 2>&1 && echo postgres || echo nobody)
    chown "$account" "$folder"
    unprivileged=(setpriv --reuid="$account" --regid="$(id -g "$account")" --clear-groups --)
fi
chmod 711 "$folder"

stop() {
    "${unprivileged[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf --one-file-system "$folder"
}
trap stop EXIT

cd "$folder"
"${unprivileged[@]}" "$bin/initdb" -D "$folder/data" -U ringfence_admin -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$folder.log" 2>&1 ||
    { cat "$folder.log" >&2; rm -f "$folder.log"; die "initdb"; }
rm -f "$folder.log"
# Nothing in it needs to survive a power cut, and every test opens a pool of its own.
"${unprivileged[@]}" "$bin/pg_ctl" -D "$folder/data" -l "$folder/data/server.log" -w -s start -o \
    "-k $folder -c listen_addresses='' -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300" ||
    { cat "$folder/data/server.log" >&2; die "PostgreSQL did not start"; }

cd "$REPO"
export DATABASE_URL="postgres://ringfence_admin@localhost/ringfence?host=$folder"
"$bin/psql" -qX -v ON_ERROR_STOP=1 -h "$folder" -U ringfence_admin -d postgres -f migrations/roles.sql
"$bin/createdb" -h "$folder" -U ringfence_admin -O ringfence_owner ringfence
status=0
"$@" || status=$?
exit "$status"
