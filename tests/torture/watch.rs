//! What relays that live long take: memory, open files, connections.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::{task::JoinHandle, time::sleep};

use crate::common::database::Database;

const EVERY: Duration = Duration::from_secs(10);
/// More than this in the last quarter than in the second is growth.
const MEMORY_MARGIN: u64 = 8 << 10; // KiB

/// A watch over some relays, until it is asked.
pub struct Watch(JoinHandle<()>, Arc<Mutex<Vec<Sample>>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Of the relay with the most, in KiB.
    memory: u64,
    /// Of the relay with the most.
    files: u64,
    /// Of all of them together.
    connections: u64,
}

impl Watch {
    pub fn start(database: &Database, pids: Vec<u32>) -> Self {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let (url, noted) = (database.url.clone(), Arc::clone(&samples));
        let watching = tokio::spawn(async move {
            loop {
                sleep(EVERY).await;
                if let Some(connections) = connections(&url).await {
                    let sample = Sample {
                        memory: pids.iter().map(|&pid| memory(pid)).max().unwrap(),
                        files: pids.iter().map(|&pid| files(pid)).max().unwrap(),
                        connections,
                    };
                    noted.lock().unwrap().push(sample);
                }
            }
        });
        Self(watching, samples)
    }

    /// Ends it; says how much there was of everything, and that it did not grow.
    pub async fn assert_flat(self) {
        assert!(!self.0.is_finished(), "nobody watched to the end");
        self.0.abort();
        drop(self.0.await);
        let samples = self.1.lock().unwrap();
        let quarter = samples.len() / 4;
        let quarters: Vec<[u64; 3]> = samples.chunks_exact(quarter.max(1)).map(medians).collect();
        println!("medians of each quarter, memory (KiB), files, connections: {quarters:?}");
        let (Some(early), Some(late)) = (quarters.get(1), quarters.get(3)) else {
            return; // too short to tell
        };
        assert!(
            late[0] <= early[0] + MEMORY_MARGIN,
            "memory grows: {quarters:?}"
        );
        assert!(late[1] <= early[1] + 4, "open files grow: {quarters:?}");
        assert!(late[2] <= early[2] + 4, "connections grow: {quarters:?}");
    }
}

fn medians(samples: &[Sample]) -> [u64; 3] {
    let fields: [fn(&Sample) -> u64; 3] = [|s| s.memory, |s| s.files, |s| s.connections];
    fields.map(|field| {
        let mut values: Vec<u64> = samples.iter().map(field).collect();
        values.sort_unstable();
        values[values.len() / 2]
    })
}

fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next();
    number.unwrap().parse().unwrap()
}

fn files(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count() as u64
}

/// None while the database is away.
async fn connections(url: &str) -> Option<u64> {
    let mut connection = PgConnection::connect(url).await.ok()?;
    let sql = "select count(*) from pg_stat_activity
                where datname = current_database() and application_name like 'outboxd/%'";
    let row = sqlx::query(sql).fetch_one(&mut connection).await.ok()?;
    u64::try_from(row.get::<i64, _>(0)).ok()
}
