# shellcheck shell=bash disable=SC2154
# Redis without persistence: what it knows is a cache of what PostgreSQL knows.

url_redis() { echo "redis://127.0.0.1:$((port + 12))"; }

probe_redis() { [[ $(redis-cli -p "$((port + 12))" ping) == PONG ]]; }

start_redis() {
    local become home=$data/redis pid state parent started
    if alive redis; then await redis 30; return; fi
    as redis
    mkdir -p "$home"
    own redis "$home"
    touch "$home/ready"
    daemon redis "${become[@]}" "$(command -v redis-server)" --bind 127.0.0.1 --port "$((port + 12))" \
        --dir "$home" --save '' --appendonly no
    await redis 30
}

stop_redis() { end redis TERM; }
