//! What a measurement costs: time, CPU, WAL, memory, dead rows.

use std::{fs, time::Instant};

use sqlx::{Connection, PgConnection, Row};

use crate::{common::Failure, stage::Scene};

/// Linux counts CPU time in these: `getconf CLK_TCK` on every machine of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Of one measurement.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Figures {
    pub events: usize,
    pub events_per_second: f64,
    /// CPU microseconds for each event.
    pub client_us: f64,
    pub postgres_us: f64,
    pub broker_us: f64,
    pub wal_bytes: f64,
    pub dead_rows: f64,
    /// Of the relay alone.
    pub peak_mib: f64,
}

impl Figures {
    /// CPU seconds for each event, of all.
    pub fn cpu(&self) -> f64 {
        (self.client_us + self.postgres_us + self.broker_us) / 1e6
    }
}

/// A measurement under way.
pub struct Meter<'a> {
    scene: &'a Scene<'a>,
    connection: PgConnection,
    lsn: String,
    cpu: Cpu,
    began: Instant,
    ended: Option<Instant>,
}

/// CPU seconds so far.
#[derive(Clone, Copy)]
struct Cpu {
    /// This process and the children it has waited for.
    client: f64,
    postgres: f64,
    broker: f64,
}

impl<'a> Meter<'a> {
    pub async fn start(scene: &'a Scene<'a>) -> Result<Self, Failure> {
        let mut connection = scene.connect().await?;
        let lsn = sqlx::query_scalar("select pg_current_wal_lsn()::text")
            .fetch_one(&mut connection)
            .await?;
        Ok(Self {
            scene,
            connection,
            lsn,
            cpu: Cpu::now(scene.stage.kind.broker_program())?,
            began: Instant::now(),
            ended: None,
        })
    }

    /// The work is done; what follows does not take its time.
    pub fn done(&mut self) {
        self.ended = Some(Instant::now());
    }

    pub async fn stop(mut self) -> Result<Figures, Failure> {
        let ended = self.ended.unwrap_or_else(Instant::now);
        let took = (ended - self.began).as_secs_f64();
        let cpu = Cpu::now(self.scene.stage.kind.broker_program())?;
        let sql = "select pg_wal_lsn_diff(pg_current_wal_lsn(), $1::pg_lsn)::float8,
                          coalesce(pg_stat_get_dead_tuples('outbox'::regclass), 0)::float8";
        let row = sqlx::query(sql)
            .bind(&self.lsn)
            .fetch_one(&mut self.connection)
            .await?;
        let events = self.scene.stage.rows as f64;
        let us = |after: f64, before: f64| (after - before) * 1e6 / events;
        Ok(Figures {
            events: self.scene.stage.rows,
            events_per_second: events / took,
            client_us: us(cpu.client, self.cpu.client),
            postgres_us: us(cpu.postgres, self.cpu.postgres),
            broker_us: us(cpu.broker, self.cpu.broker),
            wal_bytes: row.get::<f64, _>(0) / events,
            dead_rows: row.get(1),
            peak_mib: 0.0,
        })
    }
}

impl Cpu {
    fn now(broker: &str) -> Result<Self, Failure> {
        Ok(Self {
            client: seconds("/proc/self/stat").ok_or("no /proc/self/stat")?,
            postgres: of_all("postgres")?,
            broker: of_all(broker)?,
        })
    }
}

/// Of all processes of this name.
fn of_all(program: &str) -> Result<f64, Failure> {
    let mut sum = 0.0;
    for process in fs::read_dir("/proc")?.flatten() {
        let path = process.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim() == program {
            // One that has just ended counts among its parent's children.
            sum += seconds(&path.join("stat").to_string_lossy()).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// Its own, and that of children it has waited for.
fn seconds(stat: &str) -> Option<f64> {
    let stat = fs::read_to_string(stat).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<f64>());
    Some(ticks.sum::<Result<f64, _>>().ok()? / TICKS_PER_SECOND)
}

/// CPU seconds of a process so far.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    seconds(&format!("/proc/{pid}/stat"))
}

/// CPU seconds of PostgreSQL so far.
pub fn postgres_cpu_seconds() -> Result<f64, Failure> {
    of_all("postgres")
}

/// Transactions in a scene's database, and bytes of WAL, so far. Asked from elsewhere: it counts nothing
/// of its own.
pub async fn transactions_and_wal(scene: &Scene<'_>) -> Result<(f64, f64), Failure> {
    let sql =
        "select (pg_stat_get_db_xact_commit(oid) + pg_stat_get_db_xact_rollback(oid))::float8,
                      pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8
                 from pg_database where datname = $1";
    let mut connection = PgConnection::connect(scene.stage.postgres.as_str()).await?;
    let row = sqlx::query(sql)
        .bind(&scene.name)
        .fetch_one(&mut connection)
        .await?;
    Ok((row.get(0), row.get(1)))
}

/// The most memory a process has had resident so far, in MiB.
pub fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
