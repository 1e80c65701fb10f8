//! Faults of the whole PostgreSQL server, and of the PgBouncer before it.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf, process::Command, sync::Mutex};

use crate::{
    common::{
        PrivateServices,
        broker::{Broker, Kind},
        database::Database,
        relay::until,
        unique,
    },
    scene::Scene,
};

/// The data folder of a set's PostgreSQL.
async fn data_folder(server: &Database) -> PathBuf {
    server.text("show data_directory").await.into()
}

/// One relay at PostgreSQL itself, another through PgBouncer, and each server away for a while, by its
/// end and by SIGKILL; then a failover: what was the primary is a standby, until it is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restarts_and_a_failover_of_postgresql_and_pgbouncer_pass() {
    let servers = PrivateServices::up(&["pgbouncer"]);
    let (postgres, pgbouncer) = (
        servers.env("TEST_POSTGRES_URL"),
        servers.env("TEST_PGBOUNCER_URL"),
    );
    let database = Database::on(&postgres).await;
    let (folder, url) = (data_folder(&database).await, database.url.clone());
    let mut direct = Scene::new(database, &url, Broker::shared(Kind::Kafka), &[]).await;
    let database = Database::on(&postgres).await;
    let url = database.through(&pgbouncer);
    let mut pooled = Scene::new(database, &url, Broker::shared(Kind::Rabbitmq), &[]).await;

    for end in ["stop", "kill"] {
        let from = format!("{end} of PostgreSQL");
        tokio::join!(direct.load(), pooled.load());
        direct.begin();
        pooled.begin();
        servers.run(&[end, "postgres"]);
        tokio::join!(direct.misses("database_up"), pooled.misses("database_up"));
        servers.run(&["start", "postgres"]);
        tokio::join!(direct.recovers(&from), pooled.recovers(&from));

        pooled.load().await;
        pooled.begin();
        servers.run(&[end, "pgbouncer"]);
        pooled.misses("database_up").await;
        servers.run(&["start", "pgbouncer"]);
        pooled.recovers(&format!("{end} of PgBouncer")).await;
    }

    tokio::join!(direct.load(), pooled.load());
    servers.run(&["stop", "postgres"]);
    std::fs::write(folder.join("standby.signal"), "").unwrap();
    servers.run(&["start", "postgres"]);
    tokio::join!(direct.misses("database_up"), pooled.misses("database_up"));
    until("it is said that this is a standby", || async {
        direct
            .relay
            .log()
            .contains("point --database-url at the primary")
    })
    .await;
    direct.database.execute("select pg_promote()").await;
    tokio::join!(direct.recovers("a failover"), pooled.recovers("a failover"));
    direct.ends().await;
    pooled.ends().await;
}

/// A file system so small that it can be filled; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// For the owner of that folder; none where nothing may be mounted, as in some containers.
    fn new(of: &std::path::Path) -> Option<Self> {
        let owner = std::fs::metadata(of).unwrap();
        let place = std::env::temp_dir().join(unique("outboxd-disk"));
        std::fs::create_dir(&place).unwrap();
        let options = format!("size=8m,mode=700,uid={},gid={}", owner.uid(), owner.gid());
        let path = place.to_str().unwrap();
        match as_root(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", path]) {
            Ok(()) => Some(Self(place)),
            Err(error) => {
                eprintln!("{error}");
                std::fs::remove_dir(&place).unwrap();
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server may still be there, and its files with it.
        drop(as_root(&["umount", "--lazy", self.0.to_str().unwrap()]));
        drop(std::fs::remove_dir(&self.0));
    }
}

/// Runs a command, by sudo unless we may do it ourselves.
fn as_root(command: &[&str]) -> Result<(), String> {
    let own = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let sudo: &[&str] = if own { &[] } else { &["sudo", "-n"] };
    let words = [sudo, command].concat();
    let done = Command::new(words[0]).args(&words[1..]).output();
    let done = done.map_err(|error| format!("{words:?}: {error}"))?;
    let error = String::from_utf8_lossy(&done.stderr);
    (done.status.success().then_some(())).ok_or_else(|| format!("{words:?}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_publishing_until_there_is_room_to_mark_it() {
    let servers = PrivateServices::up(&["postgres"]);
    let database = Database::on(&servers.env("TEST_POSTGRES_URL")).await;
    let Some(disk) = SmallDisk::new(&data_folder(&database).await) else {
        eprintln!("not tried: it takes a file system of its own");
        return;
    };
    let tablespace = format!("create tablespace small location '{}'", disk.0.display());
    database.execute(&tablespace).await;
    // Pages without room: each mark needs a new one.
    database
        .execute("alter table outbox set tablespace small; alter table outbox set (fillfactor = 100, autovacuum_enabled = off)")
        .await;
    let url = database.url.clone();
    let mut scene = Scene::new(database, &url, Broker::shared(Kind::Kafka), &[]).await;
    scene.write(2000).await;
    fill(&scene.database).await;
    scene.misses("database_up").await;
    until("it is said why", || async {
        scene.relay.log().contains("No space left on device")
    })
    .await;
    // A mark may still find room, and each worker publishes once before it stops.
    let tries = || {
        let log = scene.relay.log();
        log.matches("No space left on device").count()
    };
    let still = Mutex::new((scene.answered().await, tries()));
    until(
        "nothing is published while marking fails several times",
        || async {
            let answered = scene.answered().await;
            let mut still = still.lock().unwrap();
            if still.0 != answered {
                *still = (answered, tries());
            }
            tries() > still.1 + 5
        },
    )
    .await;
    scene.database.execute("drop table ballast").await;
    scene.write(200).await;
    scene.recovers("a full disk").await;
    assert_eq!(scene.ends().await, 0);
}

/// Fills the small disk to its end.
async fn fill(database: &Database) {
    let mut connection = database.connect().await;
    let sql = "create table ballast (it text) tablespace small; \
               alter table ballast alter it set storage plain";
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    // In ever smaller steps, since a failed one gives its room back with the next vacuum only.
    loop {
        let sql = "insert into ballast select repeat('x', 8000) from generate_series(1, 10)";
        if let Err(error) = sqlx::raw_sql(sql).execute(&mut connection).await {
            let code = error
                .as_database_error()
                .and_then(|e| e.code().map(Into::<String>::into));
            assert_eq!(code.as_deref(), Some("53100"), "{error}");
            return;
        }
    }
}
