#!/usr/bin/env bash
# A private Postgres and Redis for the tests, on free ports of the loopback, their files in one folder.
#
#   eval "$(scripts/services.sh start)"   starts them and sets SPECTEMP_TEST_POSTGRES, SPECTEMP_TEST_REDIS, SPECTEMP_TEST_SERVICES
#   scripts/services.sh stop              stops those of SPECTEMP_TEST_SERVICES and removes their files
#
# The databases are made for speed: nothing is synced to the disk. Crashes of the server are not what they are for.
set -euo pipefail

say() { printf 'services: %s\n' "$*" >&2; }

free_port() {
  python3 - <<'PY' 2>/dev/null || perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport'
import socket
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1])
PY
}

# Postgres refuses to run as root.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

postgres_bin() {
  local dir
  for dir in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) "$(dirname "$(command -v initdb || echo /nowhere/initdb)")"; do
    [ -x "$dir/initdb" ] && { echo "$dir"; return; }
  done
  say "no Postgres server is installed (initdb): run scripts/setup.sh"
  exit 1
}

start() {
  local dir bin postgres_port redis_port
  bin=$(postgres_bin)
  command -v redis-server >/dev/null || { say "no redis-server is installed: run scripts/setup.sh"; exit 1; }
  dir=$(mktemp -d "${TMPDIR:-/tmp}/spectemp-services.XXXXXX")
  chmod 755 "$dir"
  mkdir "$dir/postgres" "$dir/redis"
  [ "$(id -u)" != 0 ] || chown postgres "$dir/postgres"
  postgres_port=$(free_port)
  (cd "$dir/postgres" && as_postgres "$bin/initdb" -D data -U postgres -A trust --no-sync -E UTF8 --locale=C) >"$dir/initdb.log" 2>&1 \
    || { cat "$dir/initdb.log" >&2; say "initdb failed"; exit 1; }
  (cd "$dir/postgres" && as_postgres "$bin/pg_ctl" -D data -w -l log \
    -o "-p $postgres_port -k $dir/postgres -c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=64MB" \
    start) >"$dir/pg_ctl.log" 2>&1 || { cat "$dir/pg_ctl.log" "$dir/postgres/log" >&2; say "Postgres did not start"; exit 1; }
  redis_port=$(free_port)
  (cd "$dir/redis" && redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$dir/redis" --save '' --appendonly no \
    --daemonize yes --pidfile "$dir/redis/pid" --logfile "$dir/redis/log") >/dev/null
  for _ in $(seq 100); do
    redis-cli -p "$redis_port" ping >/dev/null 2>&1 && break
    sleep 0.05
  done
  redis-cli -p "$redis_port" ping >/dev/null || { cat "$dir/redis/log" >&2; say "Redis did not start"; exit 1; }
  echo "export SPECTEMP_TEST_SERVICES=$dir"
  echo "export SPECTEMP_TEST_POSTGRES=postgres://postgres@127.0.0.1:$postgres_port/postgres"
  echo "export SPECTEMP_TEST_REDIS=redis://127.0.0.1:$redis_port"
}

stop() {
  local dir=${SPECTEMP_TEST_SERVICES:-}
  [ -n "$dir" ] && [ -d "$dir" ] || return 0
  [ ! -f "$dir/redis/pid" ] || kill "$(cat "$dir/redis/pid")" 2>/dev/null || true
  [ ! -d "$dir/postgres/data" ] || (cd "$dir/postgres" && as_postgres "$(postgres_bin)/pg_ctl" -D data -m immediate stop) >/dev/null 2>&1 || true
  rm -rf "$dir"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  *) say "start or stop?"; exit 2 ;;
esac
