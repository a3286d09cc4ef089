#!/usr/bin/env bash
# A private Postgres and Redis for the tests, on free ports of the loopback, their files in one folder.
#
#   eval "$(scripts/services.sh start)"   starts them and sets SPECTEMP_TEST_POSTGRES, SPECTEMP_TEST_REDIS, SPECTEMP_TEST_SERVICES
#                                         (start durable: what Postgres has committed outlives its own crash)
#   scripts/services.sh stop              stops those of SPECTEMP_TEST_SERVICES and removes their files
#   scripts/services.sh restart redis     (or postgres) stops one hard and starts it again on the same port; Redis forgets all
#
# The databases are made for speed: nothing is synced to the disk.
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

start_redis() { # DIR
  local dir=$1 port
  port=$(cat "$dir/redis/port")
  (cd "$dir/redis" && redis-server --port "$port" --bind 127.0.0.1 --dir "$dir/redis" --save '' --appendonly no \
    --daemonize yes --pidfile "$dir/redis/pid" --logfile "$dir/redis/log") >/dev/null
  for _ in $(seq 100); do
    redis-cli -p "$port" ping >/dev/null 2>&1 && return
    sleep 0.05
  done
  cat "$dir/redis/log" >&2
  say "Redis did not start"
  exit 1
}

start() {
  local dir bin postgres_port redis_port commit=off
  [ "${1:-}" != durable ] || commit=on
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
    -o "-p $postgres_port -k $dir/postgres -c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=off -c synchronous_commit=$commit -c full_page_writes=off -c shared_buffers=64MB" \
    start) >"$dir/pg_ctl.log" 2>&1 || { cat "$dir/pg_ctl.log" "$dir/postgres/log" >&2; say "Postgres did not start"; exit 1; }
  redis_port=$(free_port)
  echo "$redis_port" >"$dir/redis/port"
  start_redis "$dir"
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

restart() { # redis | postgres
  local dir=${SPECTEMP_TEST_SERVICES:?is not set: start the services first}
  case $1 in
    redis)
      kill -9 "$(cat "$dir/redis/pid")"
      while redis-cli -p "$(cat "$dir/redis/port")" ping >/dev/null 2>&1; do sleep 0.05; done
      start_redis "$dir"
      ;;
    postgres)
      (cd "$dir/postgres" && as_postgres "$(postgres_bin)/pg_ctl" -D data -w -m immediate -l log restart) >"$dir/pg_ctl.log" 2>&1 \
        || { cat "$dir/pg_ctl.log" >&2; say "Postgres did not start again"; exit 1; }
      ;;
    *) say "restart redis or postgres?"; exit 2 ;;
  esac
}

case ${1:-} in
  start) start "${2:-}" ;;
  stop) stop ;;
  restart) restart "${2:-}" ;;
  *) say "start, stop or restart?"; exit 2 ;;
esac
