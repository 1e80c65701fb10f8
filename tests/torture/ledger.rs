//! Tables beside the relay's own, and what the checker reads at the end.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row as _, postgres::PgRow};

use crate::{
    common::database::Database,
    history::{Charge, Left, Row},
    writers::{Journal, SHARED_KEYS, number},
};

/// The tables that the checker reads beside the relay's own.
pub async fn prepare(database: &Database) {
    database
        .execute(&format!(
            "create table ledger (id bigint primary key, event_id uuid not null unique);
             create table aggregates (key int primary key);
             insert into aggregates select generate_series(0, {SHARED_KEYS} - 1);
             create table charges (at timestamptz not null default clock_timestamp(), event_id text not null,
                                   state text not null, attempts int not null, reason text not null);
             create function note_charge() returns trigger language plpgsql as $$ begin
                 insert into charges (event_id, state, attempts, reason)
                     values (new.event_id, new.state, new.attempts, new.reason);
                 return null;
             end $$;
             create trigger note_charge after insert or update on outbox_failures
                 for each row execute function note_charge()"
        ))
        .await;
}

/// The committed events.
pub async fn committed(database: &Database) -> Vec<Row> {
    let rows = rows(database, "select id, event_id::text from ledger").await;
    let row = |row: &PgRow| Row {
        id: row.get(0),
        number: number(row.get(1)).unwrap(),
    };
    rows.iter().map(row).collect()
}

/// What was written about failures, in its order; `epoch` is when the journal began, by the
/// database's clock.
pub async fn charges(database: &Database, epoch: f64) -> Vec<Charge> {
    let sql = "select extract(epoch from at)::float8, event_id, state, attempts, reason from charges order by at";
    let charge = |row: &PgRow| Charge {
        at: Duration::from_secs_f64((row.get::<f64, _>(0) - epoch).max(0.0)),
        number: number(row.get(1)).unwrap(),
        state: row.get(2),
        attempts: row.get(3),
        reason: row.get(4),
    };
    rows(database, sql).await.iter().map(charge).collect()
}

/// What is left in the outbox; dead rows count if they are as they were written.
pub async fn left(database: &Database, journal: &Journal, deleted: bool) -> Left {
    let dead = "select o.event_id::text, o.aggregate_id, o.payload::text from outbox o
                  join outbox_failures f using (id) where f.state in ('dead', 'discarded') and o.published_at is null";
    let pending = "select o.event_id::text from outbox o where o.published_at is null
                    and not exists (select from outbox_failures f where f.id = o.id and f.state in ('dead', 'discarded'))";
    let retrying = "select event_id from outbox_failures where state = 'retrying'";
    let published = "select count(*) from outbox where published_at is not null";
    let whole = |row: &&PgRow| {
        let expected = journal.expected(number(row.get(0)).unwrap());
        expected == Some((row.get(1), row.get(2)))
    };
    let numbers = |row: &PgRow| number(row.get(0)).unwrap();
    Left {
        dead: (rows(database, dead).await.iter())
            .filter(whole)
            .map(numbers)
            .collect(),
        pending: rows(database, pending).await.iter().map(numbers).collect(),
        retrying: rows(database, retrying).await.iter().map(numbers).collect(),
        published: if deleted {
            None
        } else {
            Some(usize::try_from(database.number(published).await).unwrap())
        },
    }
}

async fn rows(database: &Database, sql: &str) -> Vec<PgRow> {
    let query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    query
        .fetch_all(&mut database.connect().await)
        .await
        .unwrap()
}
