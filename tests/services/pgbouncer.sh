# shellcheck shell=bash disable=SC2154
# PgBouncer in transaction mode before the PostgreSQL of this set (or the one the user gave).

url_pgbouncer() { echo "postgres://postgres:postgres@127.0.0.1:$((port + 1))/postgres"; }

# Its own console, so that it also counts as up while PostgreSQL is down.
probe_pgbouncer() { psql -XAtq "postgres://postgres:postgres@127.0.0.1:$((port + 1))/pgbouncer" -c 'show version'; }

start_pgbouncer() {
    local become home=$data/pgbouncer pid state parent started
    if alive pgbouncer; then await pgbouncer 30; return; fi
    as postgres
    # Written at each start: the PostgreSQL behind it may have become another one.
    local server="host=127.0.0.1 port=$port" users='"postgres" "postgres"'
    if given postgres; then
        [[ $TEST_POSTGRES_URL =~ ^postgres(ql)?://([^:@/]+):([^@/]*)@([^:/]+)(:([0-9]+))?(/|$) ]] ||
            die 'pgbouncer: cannot read user, password and host from TEST_POSTGRES_URL'
        local match=("${BASH_REMATCH[@]}")
        server="host=${match[4]} port=${match[6]:-5432} user=${match[2]} password=${match[3]}"
    fi
    rm -rf "$home"
    mkdir -p "$home"
    cp "$dir/tls/server.pem" "$dir/tls/server.key" "$home/"
    chmod 600 "$home/server.key"
    echo "$users" >"$home/users.txt"
    # Other roles than postgres are looked up in the server (auth_query's default).
    # ignore_startup_parameters stays empty: the relay must need none.
    # server_login_retry: or it would refuse for 15 s after each restart of PostgreSQL.
    cat >"$home/pgbouncer.ini" <<EOF
[databases]
* = $server
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $((port + 1))
unix_socket_dir =
pool_mode = transaction
auth_type = scram-sha-256
auth_file = $home/users.txt
auth_user = postgres
admin_users = postgres
default_pool_size = 50
max_client_conn = 1000
server_login_retry = 1
client_tls_sslmode = allow
client_tls_key_file = $home/server.key
client_tls_cert_file = $home/server.pem
EOF
    own postgres "$home"
    touch "$home/ready"
    daemon pgbouncer "${become[@]}" "$(command -v pgbouncer)" "$home/pgbouncer.ini"
    await pgbouncer 30
}

stop_pgbouncer() { end pgbouncer TERM; } # INT would wait for its clients
