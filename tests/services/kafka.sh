# shellcheck shell=bash disable=SC2154
# Apache Kafka, one node, KRaft. Listeners: PLAINTEXT, SSL, and SASL_SSL for alice and admin by
# SCRAM-SHA-256 and by PLAIN; and PROXIED, which a client can only use where a test has put a proxy:
# clients go where a broker says that it is. The jars are fetched once for all sets.

kafka_home() { echo "$cache/kafka-$(sha256sum <"$here/kafka/pom.xml" | cut -c -12)"; }

url_kafka() { echo "127.0.0.1:$((port + 2))"; }

# A Metadata request for no topic at all, which names the live brokers: there must be one.
probe_kafka() {
    local answer
    answer=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" &&
        printf "\0\0\0\x0e\0\x03\0\x01\0\0\0\x01\xff\xff\0\0\0\0" >&3 &&
        head -c 12 <&3 | od -An -v -tx1' - "$((port + 2))") || return 1
    answer=${answer//[[:space:]]/}
    [[ $answer == ????????0000000100000001 ]]
}

kafka_jars() {
    local home work
    home=$(kafka_home)
    mkdir -p "$cache"
    (
        flock 8
        if [[ -d $home ]]; then exit; fi
        say "fetching Kafka's jars"
        work=$(mktemp -d "$cache/fetch.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        cp "$here/kafka/pom.xml" "$work/"
        mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/jars" \
            </dev/null >"$work/log" 2>&1 8>&- 9>&- || { cat "$work/log" >&2 && exit 1; }
        mv "$work/jars" "$home"
    ) 8>>"$cache/kafka.lock"
}

start_kafka() {
    local home=$data/kafka pid state parent started jars
    if alive kafka; then await kafka 180; return; fi
    kafka_jars || die "could not fetch Kafka's jars"
    jars=$(kafka_home)
    local log=-Dorg.slf4j.simpleLogger.defaultLogLevel=warn
    if [[ ! -e $home/ready ]]; then
        rm -rf "$home"
        mkdir -p "$home"
        cp "$dir/tls/keystore.pem" "$home/"
        local plain='org.apache.kafka.common.security.plain.PlainLoginModule'
        local scram='org.apache.kafka.common.security.scram.ScramLoginModule'
        local at=127.0.0.1 listeners proxied=PROXIED://127.0.0.1
        listeners="PLAINTEXT://$at:$((port + 2)),SSL://$at:$((port + 3)),SASL_SSL://$at:$((port + 4))"
        cat >"$home/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$at:$((port + 5))
controller.listener.names=CONTROLLER
listeners=$listeners,$proxied:$((port + 10)),CONTROLLER://$at:$((port + 5))
advertised.listeners=$listeners,$proxied:$((port + 11))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location=$home/keystore.pem
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=$plain required user_alice="alice-secret" user_admin="admin-secret";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$scram required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
allow.everyone.if.no.acl.found=true
log.dirs=$home/data
num.partitions=4
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
EOF
        java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC $log -cp "$jars/*" kafka.tools.StorageTool format \
            --config "$home/server.properties" --cluster-id "$(openssl rand -hex 11)" \
            --add-scram 'SCRAM-SHA-256=[name=alice,password=alice-secret]' \
            --add-scram 'SCRAM-SHA-256=[name=admin,password=admin-secret]' \
            >>"$data/log/kafka.log" 2>&1 || broken kafka 'cannot be initialized'
        touch "$home/ready"
    fi
    daemon kafka java "-Xmx${KAFKA_HEAP:-1g}" "$log" -cp "$jars/*" kafka.Kafka "$home/server.properties"
    await kafka 180
}

stop_kafka() { end kafka TERM; }

kafka_tool() { # CLASS ARG...
    (($#)) || usage
    local class=org.apache.kafka.tools.$1
    if [[ $1 == *.* ]]; then class=$1; fi
    exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$(kafka_home)/*" "$class" "${@:2}"
}
