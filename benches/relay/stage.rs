//! A database full of events and a destination, made afresh for each measurement.

use sqlx::{Connection, Executor, PgConnection};
use url::Url;

use crate::{
    common::{Failure, database, relay, suffix},
    shipped,
    sink::Kind,
};

/// 1,000 keys.
const FILL: &str = "
    insert into outbox (aggregate_type, aggregate_id, event_type, payload)
    select $2, 'order-' || n % 1000, 'OrderPlaced', jsonb_build_object('order', n, 'pad', pad)
    from generate_series(1, $1) n join unnest($3::text[]) with ordinality pads (pad, i) on i = 1 + n % 1000
    order by n";

/// So many different ones make messages compress no better than text does: they repeat too far apart.
pub const PADS: usize = 1000;

/// Text that makes the payload 1 KiB.
pub fn pads() -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut pad = || {
        (0..995)
            .filter_map(|_| char::from_digit(random.u32(..16), 16))
            .collect()
    };
    (0..PADS).map(|_| pad()).collect()
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

/// What a measurement needs.
pub struct Stage<'a> {
    pub postgres: &'a Url,
    pub broker: &'a str,
    pub kind: Kind,
    pub mode: Mode,
    pub rows: usize,
}

/// It is there.
pub struct Scene<'a> {
    pub stage: &'a Stage<'a>,
    pub database_url: String,
    pub name: String,
}

impl Stage<'_> {
    pub async fn set(&self) -> Result<Scene<'_>, Failure> {
        let name = format!("bench_{}_{}", suffix(), fastrand::u16(..));
        database::create(self.postgres, &name).await?;
        let database_url = database::url(self.postgres, &name);
        relay::migrate(shipped::binary(), &database_url, &[])?;
        self.kind.create(self.broker, &name).await?;
        let mut connection = PgConnection::connect(&database_url).await?;
        sqlx::query(FILL)
            .bind(i32::try_from(self.rows)?)
            .bind(&name)
            .bind(pads())
            .execute(&mut connection)
            .await?;
        // What writers left to be done later is done now, and not while we measure.
        connection.execute("vacuum analyze outbox").await?;
        connection.execute("checkpoint").await?;
        connection.close().await?;
        Ok(Scene {
            stage: self,
            database_url,
            name,
        })
    }
}

impl Scene<'_> {
    pub async fn connect(&self) -> Result<PgConnection, Failure> {
        Ok(PgConnection::connect(&self.database_url).await?)
    }

    /// Takes it all away.
    pub async fn strike(self) -> Result<(), Failure> {
        database::remove(self.stage.postgres, &self.name).await?;
        self.stage.kind.delete(self.stage.broker, &self.name).await
    }
}
