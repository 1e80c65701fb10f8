//! The database of the shop.

use std::time::Duration;

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, types::PgInterval},
};

use crate::Failure;

/// Programs that start together take turns: `create table if not exists` alone fails then, now and again.
const TAKE_TURNS: &str = "
    set local client_min_messages = warning;
    select pg_advisory_xact_lock(hashtext('orders: tables'));
";

/// Rather an error, after which one tries again, than a queue of those whom nobody waits for any more.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects. A program that freezes in the middle of a transaction keeps others from its key, or its
/// message, for `longest` and no longer; nor does it wait for others longer than that.
pub async fn open(url: &str, connections: u32, longest: Duration) -> Result<PgPool, sqlx::Error> {
    let longest = longest.as_millis().clamp(1, 86_400_000);
    let options: PgConnectOptions = url.parse()?;
    let options = options.options([
        ("idle_in_transaction_session_timeout", longest),
        ("lock_timeout", longest),
    ]);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await
}

/// Says at once what would else be seen at the first use.
pub async fn require(pool: &PgPool, function: &str) -> Result<(), Failure> {
    let sql = "select to_regproc($1) is not null";
    let is_there: bool = sqlx::query_scalar(sql)
        .bind(function)
        .fetch_one(pool)
        .await?;
    if is_there {
        return Ok(());
    }
    Err(format!("there is no function {function}: run `outboxd migrate --with effects`").into())
}

/// Makes a table unless it is there.
pub async fn create_table(pool: &PgPool, create: &'static str) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::raw_sql(TAKE_TURNS).execute(&mut *transaction).await?;
    sqlx::raw_sql(create).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// A duration that PostgreSQL can count with: not zero, in whole microseconds.
pub fn interval(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        return Err("it must be above zero".into());
    }
    PgInterval::try_from(duration).map_err(|error| error.to_string())?;
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_above_zero_and_one_that_postgresql_knows() {
        assert_eq!(interval("24h"), Ok(Duration::from_hours(24)));
        for text in ["0s", "1500ns", "300000years", "-1s", "soon", ""] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
