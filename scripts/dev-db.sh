#!/usr/bin/env bash
# Starts (or finds) a PostgreSQL for development and the compile-time checks of SQL, with the roles and the newest schema.
# Prints the DATABASE_URL and writes it to .env. `scripts/dev-db.sh stop` stops it.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${RINGFENCE_DEV_DB:-/tmp/ringfence-dev-db}
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as() { if [ "$(id -u)" = 0 ]; then (cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@"); else "$@"; fi; }
if [ "${1:-}" = stop ]; then as "$bin/pg_ctl" -D "$dir/data" -m fast stop; exit; fi
mkdir -p "$dir" && chmod 755 "$dir"
[ "$(id -u)" = 0 ] && chown postgres:postgres "$dir"
if [ ! -d "$dir/data" ]; then
  as "$bin/initdb" -D "$dir/data" -U ringfence_admin --auth=trust --encoding=UTF8 --locale=C.UTF-8 >/dev/null
fi
if ! as "$bin/pg_ctl" -D "$dir/data" status >/dev/null 2>&1; then
  as "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" \
    -o "-c listen_addresses= -c unix_socket_directories=$dir -c fsync=off -c max_connections=300" start >/dev/null
fi
psql() { command psql -h "$dir" -U ringfence_admin -v ON_ERROR_STOP=1 -qAtX "$@"; }
psql -d postgres -f migrations/roles.sql
[ "$(psql -d postgres -c "select 1 from pg_database where datname='ringfence'")" = 1 ] || psql -d postgres -c "create database ringfence owner ringfence_owner"
url="postgres://ringfence_admin@localhost/ringfence?host=$dir"
printf 'DATABASE_URL=%s\n' "$url" >.env
for file in migrations/sql/*.sql; do
  version=$(basename "$file" .sql)
  psql -d ringfence -c "create table if not exists dev_applied (version text primary key)" 2>/dev/null
  if [ "$(psql -d ringfence -c "select 1 from dev_applied where version='$version'")" != 1 ]; then
    psql -d ringfence --single-transaction -c "set role ringfence_owner" -f "$file" -c "reset role" -c "insert into dev_applied values ('$version')" >/dev/null
  fi
done
echo "$url"
