//! Debezium Server, as it is published, with its outbox event router and Kafka sink.
//!
//! Its best case: the rows are in the WAL and nothing else is, written by small transactions while it was
//! not running; there is no snapshot to take. Tuned as its documentation advises for throughput: larger
//! batches and queue, no wait for more, a larger Kafka batch with a linger. (It awaits all of a batch
//! before it takes the next one.) Smaller batches, and a heap without bound, were no faster. It marks and
//! deletes nothing: rows stay.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sqlx::{AssertSqlSafe, Executor};
use tokio::time::{sleep, timeout};

use crate::{
    common::{Failure, relay},
    java,
    stage::Scene,
};

pub const NAME: &str = "debezium";
/// Of its latest run.
pub const LOG: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench-rivals-debezium/log");

const ARTIFACT: &str = "io.debezium:debezium-server-dist:3.6.0.Final:tar.gz";
/// An older one, such as Maven's default, wants the artifact's parent as well, which is not published.
const UNPACK: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.10.0:unpack";
/// Unpacked once for all runs: 875 MB.
const UNPACKED: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/debezium-3.6.0.Final");
/// Where it runs.
const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench-rivals-debezium");

/// The same rows once more, from which on the WAL is kept. (A new slot cannot be made by a transaction
/// that has written, and what commits must be a statement of its own.)
const REFILL: [&str; 6] = [
    "create table kept as table outbox; create index on kept (id); truncate outbox",
    "create publication {name} for table outbox with (publish = 'insert')",
    "select pg_create_logical_replication_slot('{name}', 'pgoutput')",
    "set synchronous_commit = off",
    "do $$ begin
        for f in 0 .. (select max(id) from kept) by 10 loop
            insert into outbox overriding system value
                select * from kept where id > f and id <= f + 10 order by id;
            commit;
        end loop;
    end $$",
    "drop table kept",
];

const DROP_SLOT: &str = "
    select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active";

pub struct Debezium {
    java: PathBuf,
}

impl Debezium {
    /// Fetched, if need be.
    pub fn find() -> Result<Self, Failure> {
        let java = java::find()?;
        if !Path::new(UNPACKED).exists() {
            eprintln!("fetching {ARTIFACT}");
            let unpacking = format!("{UNPACKED}.part");
            let status = Command::new("mvn")
                .args(["-q", "-B", "-Dstyle.color=never", UNPACK])
                .arg(format!("-Dartifact={ARTIFACT}"))
                .arg(format!("-DoutputDirectory={unpacking}"))
                // It leaves a folder of markers wherever it runs.
                .current_dir(env!("CARGO_TARGET_TMPDIR"))
                .status()
                .map_err(|error| format!("mvn: {error}"))?;
            if !status.success() {
                return Err(format!("mvn: {status}").into());
            }
            fs::rename(unpacking, UNPACKED)?;
        }
        Ok(Self { java })
    }

    /// As its `run.sh` does it, with a configuration for this scene.
    pub fn command(&self, scene: &Scene<'_>) -> Result<Command, Failure> {
        let folder = Path::new(FOLDER);
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder.join("config"))?;
        fs::write(
            folder.join("config/application.properties"),
            properties(scene)?,
        )?;
        let log = File::create(LOG)?;
        let home = Path::new(UNPACKED).join("debezium-server");
        let home = home.display();
        let mut command = Command::new(&self.java);
        command
            // Measured: as fast as with the default, a quarter of the machine, which it fills for nothing.
            .arg("-Xmx1g")
            // Java 25 would otherwise refuse what its libraries do.
            .arg("--add-opens=java.base/java.lang=ALL-UNNAMED")
            .arg("-cp")
            .arg(format!(
                "{home}/debezium-server-dist-3.6.0.Final-runner.jar:{home}/lib/*"
            ))
            .arg("io.debezium.server.Main")
            .current_dir(folder)
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }
}

/// Its `application.properties`.
fn properties(scene: &Scene<'_>) -> Result<String, Failure> {
    let database: url::Url = scene.database_url.parse()?;
    let name = &scene.name;
    let broker = scene.stage.broker;
    let host = database.host_str().ok_or("a database without host")?;
    let port = database.port().unwrap_or(5432);
    let user = database.username();
    let password = database.password().unwrap_or_default();
    let listen = relay::free_address()?.port();
    Ok(format!(
        "debezium.sink.type=kafka
debezium.sink.kafka.producer.bootstrap.servers={broker}
debezium.sink.kafka.producer.key.serializer=org.apache.kafka.common.serialization.StringSerializer
debezium.sink.kafka.producer.value.serializer=org.apache.kafka.common.serialization.StringSerializer
debezium.sink.kafka.producer.acks=all
debezium.sink.kafka.producer.compression.type=lz4
debezium.sink.kafka.producer.linger.ms=5
debezium.sink.kafka.producer.batch.size=262144
debezium.sink.kafka.producer.buffer.memory=134217728
debezium.source.connector.class=io.debezium.connector.postgresql.PostgresConnector
debezium.source.offset.storage.file.filename=offsets.dat
debezium.source.database.hostname={host}
debezium.source.database.port={port}
debezium.source.database.user={user}
debezium.source.database.password={password}
debezium.source.database.dbname={name}
debezium.source.topic.prefix=rival
debezium.source.table.include.list=public.outbox
debezium.source.plugin.name=pgoutput
debezium.source.slot.name={name}
debezium.source.publication.name={name}
debezium.source.publication.autocreate.mode=disabled
debezium.source.snapshot.mode=no_data
debezium.source.tombstones.on.delete=false
debezium.source.max.batch.size=8192
debezium.source.max.queue.size=32768
debezium.source.poll.interval.ms=10
debezium.format.key=simplestring
debezium.format.value=simplestring
debezium.format.header.schemas.enable=false
debezium.transforms=outbox
debezium.transforms.outbox.type=io.debezium.transforms.outbox.EventRouter
debezium.transforms.outbox.table.field.event.id=event_id
debezium.transforms.outbox.table.field.event.key=aggregate_id
debezium.transforms.outbox.table.field.event.payload=payload
debezium.transforms.outbox.table.fields.additional.placement=event_type:header:type
debezium.transforms.outbox.route.by.field=aggregate_type
debezium.transforms.outbox.route.topic.regex=.+
debezium.transforms.outbox.route.topic.replacement={name}
quarkus.http.host=127.0.0.1
quarkus.http.port={listen}
quarkus.log.console.json=false
"
    ))
}

/// Has the scene's rows inserted anew behind a replication slot, while nobody reads it.
pub async fn refill(scene: &Scene<'_>) -> Result<(), Failure> {
    let mut connection = scene.connect().await?;
    for statement in REFILL {
        let statement = statement.replace("{name}", &scene.name);
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
    }
    connection.execute("vacuum analyze outbox").await?;
    connection.execute("checkpoint").await?;
    Ok(())
}

/// Once PostgreSQL has noticed that its reader is gone.
pub async fn drop_slot(scene: &Scene<'_>) -> Result<(), Failure> {
    let mut connection = scene.connect().await?;
    let dropping = async {
        loop {
            let dropped = sqlx::query(DROP_SLOT)
                .bind(&scene.name)
                .execute(&mut connection)
                .await?;
            if dropped.rows_affected() > 0 {
                return Ok::<_, sqlx::Error>(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    Ok(timeout(Duration::from_secs(30), dropping).await??)
}
