#!/usr/bin/env bash
# Real servers for the tests: PostgreSQL, Kafka, RabbitMQ, PgBouncer and Redis, on 127.0.0.1, without
# containers. One state folder ($SERVICES_DIR, default <project>/.services) is one independent set:
# own ports, own data, own processes.
set -euo pipefail

usage() {
    cat >&2 <<'EOF'
usage: services.sh up [postgres|kafka|rabbitmq|pgbouncer|redis]...   install what is missing, start, wait until they answer
       services.sh env                   print export lines (TEST_POSTGRES_URL, ...) for a shell to eval
       services.sh status                a line for each server
       services.sh stop|start|kill NAME  an outage: same ports and data afterwards (kill is SIGKILL)
       services.sh down                  end what this set started, keep its data
       services.sh destroy               down, and remove the state folder
       services.sh rabbitmqctl ARG...    rabbitmqctl against this set's node
       services.sh kafka TOOL ARG...     a Kafka tool class, such as AclCommand or ConsoleProducer,
                                         or a full name: kafka.tools.StorageTool
SERVICES_DIR=DIR is another, independent set. A server whose TEST_..._URL (or TEST_KAFKA_BROKERS)
you set yourself is used as it is and not started.
EOF
    exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
dir=$(realpath -m -- "${SERVICES_DIR:-$root/.services}")
cache=$(realpath -m -- "${SERVICES_CACHE:-$root/.services/cache}")
data=/dev/null # where the servers keep their files: see find_state
port=0         # first of this set's thirteen ports
all=(postgres kafka rabbitmq pgbouncer redis)

# The caller's settings for some other server are not ours, and neither are its open files: a
# server that kept a pipe of the caller open would keep the caller waiting.
unset "${!PG@}" "${!RABBITMQ_@}" "${!ERL_@}"
for fd in "/proc/$$/fd/"*; do
    fd=${fd##*/}
    if ((fd > 2 && fd != 255)); then exec {fd}>&-; fi # 255 is this script
done
export LC_ALL=C.UTF-8 PATH="$PATH:/usr/sbin:/sbin"
cd / # servers run as users that may not be allowed in the caller's folder

say() { printf 'services: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# --- processes ---------------------------------------------------------------------------------

# A process is known by pid and start time together: a pid alone may come to be another program's.
stat_of() { # PID -> state, parent, started
    local line fields
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -ra fields <<<"${line##*) }"
    state=${fields[0]} parent=${fields[1]} started=${fields[19]}
}

alive() { # NAME -> pid
    local noted
    { read -r pid noted <"$data/run/$1"; } 2>/dev/null || return 1
    stat_of "$pid" && [[ $started == "$noted" && $state != Z ]]
}

daemon() { # NAME COMMAND...
    local name=$1 state parent started
    shift
    setsid "$@" </dev/null >>"$data/log/$name.log" 2>&1 9>&- &
    stat_of $! && echo "$! $started" >"$data/run/$name"
}

# As which user a server runs that refuses to run as root. setpriv becomes the server instead of
# staying its parent, so that the noted pid is the server's.
as() { # USER -> array become
    become=()
    if ((EUID == 0)); then become=(setpriv "--reuid=$1" "--regid=$1" --init-groups --); fi
}

own() { # USER PATH...
    if ((EUID == 0)); then chown -R "$1:" "${@:2}"; fi
}

broken() { # NAME WHAT
    say "$1 $2; the end of $data/log/$1.log:"
    tail -n 20 "$data/log/$1.log" >&2
    exit 1
}

await() { # NAME SECONDS: until its probe succeeds
    local name=$1 end=$((SECONDS + $2)) pid state parent started
    until "probe_$name" >/dev/null 2>&1; do
        if ! alive "$name" || ((SECONDS > end)); then broken "$name" 'does not answer'; fi
        sleep 0.1
    done
}

gone() { # NAME SECONDS: whether it ends within that time
    local end=$((SECONDS + $2))
    while alive "$1"; do
        if ((SECONDS > end)); then return 1; fi
        sleep 0.05
    done
}

end() { # NAME SIGNAL: ask, wait, then force
    local pid state parent started
    alive "$1" || return 0
    kill "-$2" "$pid" 2>/dev/null || true
    gone "$1" 30 || murder "$1"
}

murder() { # NAME: it and its children at once, as when a machine fails
    local pid victim child state parent started
    alive "$1" || return 0
    victim=$pid
    local victims=("$victim")
    for child in /proc/[0-9]*; do
        if stat_of "${child#/proc/}" && [[ $parent == "$victim" ]]; then victims+=("${child#/proc/}"); fi
    done
    kill -KILL "${victims[@]}" 2>/dev/null || true
    for victim in "${victims[@]}"; do
        while stat_of "$victim" && [[ $state != Z ]]; do sleep 0.02; done
    done
}

# --- state -------------------------------------------------------------------------------------

# The servers' files are in /var/tmp and linked from the state folder, because the project may be
# under a folder that other users (postgres, rabbitmq) may not enter, and because a socket's path
# must be short. The folder's name is the set's first port: making it takes the ports, also from
# sets which are stopped, and two sets cannot get the same.
find_state() {
    local found owner
    found=$(readlink "$dir/data") && [[ -d $found && -O $found ]] || return 1
    owner=$(<"$found/owner")
    if [[ $owner != "$dir" ]]; then
        # Someone copied the state folder: the set stays the original's. (Moved: it is ours.)
        if [[ $owner/data -ef $found ]]; then return 1; fi
        echo "$dir" >"$found/owner"
    fi
    data=$found port=${found##*-}
}

make_state() {
    local tries offset
    for tries in {1..500}; do
        port=$((20000 + RANDOM % 600 * 20)) # below the kernel's own range for outgoing connections
        for offset in {0..12}; do
            if (exec 3<>"/dev/tcp/127.0.0.1/$((port + offset))") 2>/dev/null; then continue 2; fi
        done
        data=/var/tmp/outboxd-services-$port
        if mkdir -m 755 "$data" 2>/dev/null; then
            mkdir -p "$data/run" "$data/log"
            echo "$dir" >"$data/owner"
            ln -sfn "$data" "$dir/data"
            return
        fi
    done
    die "no free ports after $tries tries"
}

open_state() { find_state || die "nothing here yet: $dir (services.sh up)"; }

lock() { # one command at a time in a set
    while true; do
        exec 9>>"$dir/lock"
        flock 9
        if [[ /proc/$$/fd/9 -ef $dir/lock ]]; then return; fi # or destroy took it away meanwhile
        mkdir -p "$dir"
    done
}

make_tls() {
    if [[ -e $dir/tls/ready ]]; then return; fi
    mkdir -p "$dir/tls"
    local t=$dir/tls key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${key[@]}" -days 3650 -subj '/CN=outboxd test CA' \
        -addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout "$t/ca.key" -out "$t/ca.pem"
    openssl req -new "${key[@]}" -subj /CN=localhost -keyout "$t/server.key" -out "$t/server.csr"
    openssl x509 -req -in "$t/server.csr" -CA "$t/ca.pem" -CAkey "$t/ca.key" -CAcreateserial -days 3650 \
        -out "$t/server.pem" -extfile <(printf '%s\n' 'basicConstraints=critical,CA:FALSE' \
        'subjectAltName=DNS:localhost,IP:127.0.0.1' 'extendedKeyUsage=serverAuth')
    cat "$t/server.key" "$t/server.pem" "$t/ca.pem" >"$t/keystore.pem" # as Kafka wants it
    touch "$t/ready"
} 2>/dev/null

# --- packages ----------------------------------------------------------------------------------

install_missing() { # NAME...
    local want=(build-essential pkg-config libssl-dev zlib1g-dev openssl python3-psycopg python3-pika) missing=() package name have
    want+=(ca-certificates systemd)            # for what deploy/ is checked with
    want+=(chromium-headless-shell prometheus) # for what people see: the status page, alerts
    for name in "$@"; do
        case $name in
        postgres) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql) ;;
        rabbitmq) [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || missing+=(rabbitmq-server) ;;
        pgbouncer)
            command -v pgbouncer >/dev/null || missing+=(pgbouncer)
            command -v psql >/dev/null || missing+=(postgresql-client)
            ;;
        redis) command -v redis-server >/dev/null || missing+=(redis-server) ;;
        kafka)
            # tests/deploy compiles a few lines of Java.
            command -v javac >/dev/null || missing+=(openjdk-17-jdk-headless)
            [[ -d $(kafka_home) ]] || command -v mvn >/dev/null || missing+=(maven)
            ;;
        esac
    done
    if command -v dpkg-query >/dev/null; then
        have=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${want[@]}" 2>/dev/null) || true
        for package in "${want[@]}"; do
            [[ $'\n'$have$'\n' == *$'\n'"installed $package"$'\n'* ]] || missing+=("$package")
        done
    fi
    if ((${#missing[@]} == 0)); then return; fi
    say "installing ${missing[*]}"
    local sudo=()
    if ((EUID != 0)); then sudo=(sudo -n); fi
    mkdir -p "$cache"
    (
        flock 8 # apt-get's own lock makes a second one fail, not wait
        export DEBIAN_FRONTEND=noninteractive
        "${sudo[@]}" apt-get -qq update 8>&- &&
            "${sudo[@]}" apt-get -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${missing[@]}" 8>&-
    ) 8>>"$cache/apt.lock" >&2 </dev/null || die "could not install ${missing[*]}"
}

# --- commands ----------------------------------------------------------------------------------

url_variable() {
    case $1 in
    postgres) echo TEST_POSTGRES_URL ;;
    kafka) echo TEST_KAFKA_BROKERS ;;
    rabbitmq) echo TEST_RABBITMQ_URL ;;
    pgbouncer) echo TEST_PGBOUNCER_URL ;;
    redis) echo TEST_REDIS_URL ;;
    *) usage ;;
    esac
}

# A server of the user's own. What `env` printed is noted in TEST_SERVICES_URLS and does not count:
# otherwise `up` would do nothing in a shell, or a test, which has that environment.
given() { # NAME
    local variable
    variable=$(url_variable "$1")
    [[ -n ${!variable:-} && " ${TEST_SERVICES_URLS:-} " != *" ${!variable} "* ]]
}

up() {
    local names=() name failed=0
    if (($# == 0)); then set -- "${all[@]}"; fi
    for name in "$@"; do
        url_variable "$name" >/dev/null
        if [[ $name == pgbouncer && " $* " != *' postgres '* ]]; then set -- "$@" postgres; fi
    done
    for name in "$@"; do
        if given "$name"; then say "$name: using $(url_variable "$name")"; else names+=("$name"); fi
    done
    if ((${#names[@]} == 0)); then return; fi
    install_missing "${names[@]}"
    mkdir -p "$dir"
    lock
    [[ -e $dir/.gitignore ]] || echo '*' >"$dir/.gitignore"
    find_state || make_state
    make_tls || die "could not make certificates in $dir/tls"
    local jobs=()
    for name in "${names[@]}"; do
        "start_$name" &
        jobs+=($!)
    done
    for name in "${jobs[@]}"; do wait "$name" || failed=1; done
    return $failed
}

one() { # stop|start|kill NAME
    (($# == 2)) || usage
    url_variable "$2" >/dev/null
    open_state
    lock
    [[ -e $data/$2/ready ]] || die "$2 is not one of this set's servers ($dir)"
    case $1 in
    start) "start_$2" ;;
    stop) "stop_$2" ;;
    kill) murder "$2" ;;
    esac
}

down() {
    if ! find_state; then return; fi
    lock
    local name
    for name in "${all[@]}"; do "stop_$name" & done
    wait
}

destroy() {
    down
    if find_state; then rm -rf -- "$data"; fi
    # Only what is ours, lest SERVICES_DIR was some other folder. The jars stay if they are in here:
    # other sets run from them.
    if [[ -L $dir/data ]]; then rm -f -- "$dir/data"; fi
    if [[ -e $dir/tls/ready ]]; then rm -rf -- "$dir/tls" "$dir/lock"; fi
    if [[ $cache != "$dir"/* && $(cat "$dir/.gitignore" 2>/dev/null) == '*' ]]; then rm -f -- "$dir/.gitignore"; fi
    rmdir -- "$dir" 2>/dev/null || true
}

status() {
    local name pid state parent started
    find_state || true
    for name in "${all[@]}"; do
        if given "$name"; then
            echo "$name: yours"
        elif [[ ! -e $data/$name/ready ]]; then
            echo "$name: never started"
        elif alive "$name"; then
            echo "$name: running, pid $pid, $("url_$name")"
        else
            echo "$name: stopped"
        fi
    done
}

export_line() { printf 'export %s=%s\n' "$1" "${2@Q}"; }

environment() {
    local name variable urls=${TEST_SERVICES_URLS:-}
    find_state || true
    for name in "${all[@]}"; do
        variable=$(url_variable "$name")
        if given "$name"; then
            export_line "$variable" "${!variable}"
        elif [[ -e $data/$name/ready ]]; then
            export_line "$variable" "$("url_$name")"
            urls+=" $("url_$name")"
            if [[ $name == kafka ]]; then
                export_line TEST_KAFKA_SSL_BROKERS "127.0.0.1:$((port + 3))"
                export_line TEST_KAFKA_SASL_BROKERS "127.0.0.1:$((port + 4))"
                # A test's proxy listens on the one and leads to the other.
                export_line TEST_KAFKA_PROXIED_BROKERS "127.0.0.1:$((port + 11))"
                export_line TEST_KAFKA_BEHIND_PROXY "127.0.0.1:$((port + 10))"
            elif [[ $name == rabbitmq ]]; then
                export_line TEST_RABBITMQ_TLS_URL "amqps://guest:guest@localhost:$((port + 7))/%2f"
            fi
        fi
    done
    if [[ -e $dir/tls/ready ]]; then export_line TEST_CA_FILE "$dir/tls/ca.pem"; fi
    export_line TEST_SERVICES "$here/services.sh"
    export_line TEST_SERVICES_URLS "${urls# }"
    export_line SERVICES_DIR "$dir"
}

# shellcheck source=postgres.sh
. "$here/postgres.sh"
# shellcheck source=kafka.sh
. "$here/kafka.sh"
# shellcheck source=rabbitmq.sh
. "$here/rabbitmq.sh"
# shellcheck source=pgbouncer.sh
. "$here/pgbouncer.sh"
# shellcheck source=redis.sh
. "$here/redis.sh"

# As many open files as allowed, but Erlang makes a table of that size.
limit=$(ulimit -Hn)
if [[ $limit == unlimited ]] || ((limit > 65536)); then limit=65536; fi
ulimit -Sn "$limit"

command=${1:-}
if (($#)); then shift; fi
case $command in
up) up "$@" ;;
stop | start | kill) one "$command" "$@" ;;
down) down ;;
destroy) destroy ;;
env) environment ;;
status) status ;;
rabbitmqctl)
    open_state
    rabbitmqctl "$@"
    ;;
kafka)
    open_state
    kafka_tool "$@"
    ;;
*) usage ;;
esac
