# shellcheck shell=bash disable=SC2154
# PostgreSQL, the newest of Debian's: a cluster of our own, with its real durability.

pg_bin() {
    local found
    found=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    [[ -x $found/postgres ]] && echo "$found"
}

url_postgres() { echo "postgres://postgres:postgres@127.0.0.1:$port/postgres"; }

probe_postgres() { psql -XAtq "$(url_postgres)" -c 'select 1'; }

# After a kill PostgreSQL's lock files name a pid that lives on as a zombie until init takes notice,
# and PostgreSQL believes that to be another server. Without one process left that works in the data
# folder, the locks are nobody's.
unlock_postgres() {
    local home=$data/postgres process end=$((SECONDS + 10))
    for process in /proc/[0-9]*; do
        while [[ $process/cwd -ef $home/data ]]; do
            if ((SECONDS > end)); then die "postgres: process ${process#/proc/} still uses $home/data"; fi
            sleep 0.02
        done
    done
    rm -f "$home/data/postmaster.pid" "$home/socket/".s.PGSQL.*
}

start_postgres() {
    local bin become home=$data/postgres pid state parent started
    if alive postgres; then await postgres 180; return; fi
    bin=$(pg_bin) || die 'no PostgreSQL under /usr/lib/postgresql'
    as postgres
    if [[ ! -e $home/ready ]]; then
        rm -rf "$home"
        mkdir -p "$home/socket"
        cp "$dir/tls/server.pem" "$dir/tls/server.key" "$home/"
        chmod 600 "$home/server.key"
        echo postgres >"$home/password"
        own postgres "$home"
        "${become[@]}" "$bin/initdb" --pgdata="$home/data" --username=postgres --pwfile="$home/password" \
            --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync \
            >>"$data/log/postgres.log" 2>&1 || broken postgres "cannot be initialized"
        cat >>"$home/data/postgresql.conf" <<EOF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$home/socket'
max_connections = 500
max_prepared_transactions = 20
shared_buffers = 512MB
max_wal_size = 8GB
checkpoint_timeout = 15min
fsync = on
synchronous_commit = on
wal_level = replica
ssl = on
ssl_cert_file = '$home/server.pem'
ssl_key_file = '$home/server.key'
log_line_prefix = '%m [%p] %q%a '
EOF
        touch "$home/ready"
    fi
    unlock_postgres
    daemon postgres "${become[@]}" "$bin/postgres" -D "$home/data"
    await postgres 180
}

stop_postgres() { end postgres INT; } # its fast shutdown
