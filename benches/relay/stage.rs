//! A database full of events and a destination, made afresh for each measurement.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use url::Url;

use crate::{
    common::{Failure, database, relay},
    shipped,
    sink::Kind,
};

const FILL: &str = "
    insert into outbox (aggregate_type, aggregate_id, event_type, payload, published_at)
    select 'orders', $5 || n % $2, 'OrderPlaced',
           jsonb_build_object('order', n, 'pad', ($3::text[])[1 + n % cardinality($3)]),
           case when $4 then now() end
      from generate_series(1, $1) n";

/// What a payload has besides its pad.
const AROUND_PAD: usize = 29;

/// What rows look like.
#[derive(Clone, Copy)]
pub struct Rows {
    pub count: usize,
    pub keys: usize,
    /// What they begin with.
    pub key: &'static str,
    pub payload_bytes: usize,
    pub published: bool,
}

impl Rows {
    /// Pending, of 1,000 keys and 1 KiB.
    pub fn pending(count: usize) -> Self {
        Self {
            count,
            keys: 1_000,
            key: "order-",
            payload_bytes: 1024,
            published: false,
        }
    }

    async fn insert(self, connection: &mut PgConnection) -> Result<(), Failure> {
        sqlx::query(FILL)
            .bind(i32::try_from(self.count)?)
            .bind(i32::try_from(self.keys)?)
            .bind(pads(self.payload_bytes))
            .bind(self.published)
            .bind(self.key)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Text that fills payloads up. So many different ones make messages compress no better than text does:
/// they repeat too far apart.
fn pads(payload_bytes: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut pad = || {
        (AROUND_PAD..payload_bytes)
            .filter_map(|_| char::from_digit(random.u32(..16), 16))
            .collect()
    };
    (0..(1_024_000 / payload_bytes).clamp(10, 1_000))
        .map(|_| pad())
        .collect()
}

/// Payloads as the rows have them.
pub fn payloads(bytes: usize) -> Vec<String> {
    let payload = |(n, pad)| format!(r#"{{"pad": "{pad}", "order": {n}}}"#);
    pads(bytes).into_iter().enumerate().map(payload).collect()
}

/// What happens to published rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Mark,
    Delete,
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::Mark, Self::Delete];

    pub fn name(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::Delete => "delete",
        }
    }
}

/// What a measurement needs. Its rows are inserted once, and copied for each measurement.
pub struct Stage<'a> {
    pub postgres: &'a Url,
    pub broker: &'a str,
    pub kind: Kind,
    pub mode: Mode,
    /// Events that will be published.
    pub rows: usize,
    pub payload_bytes: usize,
    /// The filled database.
    pub template: String,
}

/// It is there.
pub struct Scene<'a> {
    pub stage: &'a Stage<'a>,
    pub database_url: String,
    pub name: String,
}

impl Stage<'_> {
    /// Makes the database to be copied; the last of `contents` is what will be published.
    pub async fn fill(&self, contents: &[Rows]) -> Result<(), Failure> {
        database::create(self.postgres, &self.template).await?;
        let database_url = database::url(self.postgres, &self.template);
        relay::migrate(shipped::binary(), &database_url, &[])?;
        let mut connection = PgConnection::connect(&database_url).await?;
        for rows in contents {
            rows.insert(&mut connection).await?;
        }
        // What writers left to be done later is done now, and not while we measure.
        connection.execute("vacuum analyze").await?;
        Ok(connection.close().await?)
    }

    /// Measures on a copy of the database and a destination of its own.
    pub async fn on_a_scene<T>(
        &self,
        measure: impl AsyncFnOnce(&Scene<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let name = format!("{}_{}", self.template, fastrand::u16(..));
        // Begins and ends with a checkpoint.
        let copy = format!(
            "create database {name} template {} strategy file_copy",
            self.template
        );
        let mut server = PgConnection::connect(self.postgres.as_str()).await?;
        server.execute(AssertSqlSafe(copy)).await?;
        server.close().await?;
        self.kind.create(self.broker, &name).await?;
        let scene = Scene {
            stage: self,
            database_url: database::url(self.postgres, &name),
            name,
        };
        let measured = measure(&scene).await;
        database::remove(self.postgres, &scene.name).await?;
        self.kind.delete(self.broker, &scene.name).await?;
        measured
    }

    /// Takes the filled database away.
    pub async fn strike(self) -> Result<(), Failure> {
        database::remove(self.postgres, &self.template).await
    }
}

impl Scene<'_> {
    pub async fn connect(&self) -> Result<PgConnection, Failure> {
        Ok(PgConnection::connect(&self.database_url).await?)
    }
}
