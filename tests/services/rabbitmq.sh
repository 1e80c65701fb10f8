# shellcheck shell=bash disable=SC2154
# RabbitMQ, one node, without plugins: AMQP and AMQPS, user guest.

rabbit_bin=/usr/lib/rabbitmq/bin # /usr/sbin/rabbitmq-server would insist on the system's node

url_rabbitmq() { echo "amqp://guest:guest@127.0.0.1:$((port + 6))/%2f"; }

# The broker speaks after the protocol header, and only once it has booted.
probe_rabbitmq() {
    [[ $(timeout 3 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && printf "AMQP\0\0\x09\x01" >&3 &&
        head -c 1 <&3 | od -An -tx1' - "$((port + 6))") == *01* ]]
}

rabbit_command() { # -> array rabbit: what to put before a RabbitMQ program
    local become home=$data/rabbitmq
    as rabbitmq
    rabbit=("${become[@]}" env "HOME=$home" "ERL_EPMD_PORT=$((port + 9))" ERL_EPMD_ADDRESS=127.0.0.1
        "ERL_CRASH_DUMP=$home/erl_crash.dump"
        "RABBITMQ_NODENAME=outboxd-$port@localhost"
        "RABBITMQ_DIST_PORT=$((port + 8))"
        "RABBITMQ_CONF_ENV_FILE=$home/none" # not the system's
        "RABBITMQ_CONFIG_FILE=$home/rabbitmq.conf"
        "RABBITMQ_ENABLED_PLUGINS_FILE=$home/plugins"
        "RABBITMQ_MNESIA_BASE=$home/mnesia"
        "RABBITMQ_LOG_BASE=$home/log"
        "RABBITMQ_PID_FILE=$home/pid")
}

start_rabbitmq() {
    local rabbit home=$data/rabbitmq pid state parent started
    if alive rabbitmq; then await rabbitmq 180; return; fi
    rabbit_command
    if [[ ! -e $home/ready ]]; then
        rm -rf "$home"
        mkdir -p "$home/mnesia" "$home/log"
        cp "$dir/tls/"{ca.pem,server.pem,server.key} "$home/"
        openssl rand -hex 20 >"$home/.erlang.cookie"
        chmod 400 "$home/.erlang.cookie" "$home/server.key"
        echo '[].' >"$home/plugins"
        touch "$home/none"
        cat >"$home/rabbitmq.conf" <<EOF
listeners.tcp.1 = 127.0.0.1:$((port + 6))
listeners.ssl.1 = 127.0.0.1:$((port + 7))
ssl_options.cacertfile = $home/ca.pem
ssl_options.certfile = $home/server.pem
ssl_options.keyfile = $home/server.key
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 2GB
log.file = false
log.console = true
log.console.level = info
EOF
        own rabbitmq "$home"
        touch "$home/ready"
    fi
    # Erlang's name server, one of our own: Erlang would start one that outlives everything.
    alive epmd || daemon epmd "${rabbit[@]}" epmd -address 127.0.0.1
    # As under systemd: the Erlang machine replaces the script, so that the noted pid is the broker's.
    # +sbwt none: no busy waiting, the processors are few and shared.
    daemon rabbitmq "${rabbit[@]}" RUNNING_UNDER_SYSTEMD=true \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}' \
        "$rabbit_bin/rabbitmq-server"
    await rabbitmq 180
}

stop_rabbitmq() {
    end rabbitmq TERM
    end epmd TERM
}

rabbitmqctl() {
    local rabbit
    rabbit_command
    exec "${rabbit[@]}" "$rabbit_bin/rabbitmqctl" "$@"
}
