#!/usr/bin/env bash
# Fails when .sqlx is not what the queries in the code and the schema of migrations/ give. DATABASE_URL: an empty database, see test-postgres.sh.
#   check-queries.sh          compares
#   check-queries.sh write    writes .sqlx anew
source "$(dirname "$0")/lib.sh"
cd "$REPO"

case ${1:-} in
    write) check=() ;;
    "") check=(--check) ;;
    *) die "usage: check-queries.sh [write]" ;;
esac
sqlx migrate run --source migrations/sql --database-url "${DATABASE_URL/ringfence_admin/ringfence_owner}"
SQLX_OFFLINE=false cargo sqlx prepare "${check[@]}" --workspace -- -p store --all-targets --features testing
