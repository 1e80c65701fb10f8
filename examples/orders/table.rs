//! Tables of the shop, each made by the program that writes it.

use sqlx::PgPool;

/// Programs that start together take turns: `create table if not exists` alone fails then, now and again.
const TAKE_TURNS: &str = "
    set local client_min_messages = warning;
    select pg_advisory_xact_lock(hashtext('orders: tables'));
";

/// Makes a table unless it is there.
pub async fn create(pool: &PgPool, create: &'static str) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::raw_sql(TAKE_TURNS).execute(&mut *transaction).await?;
    sqlx::raw_sql(create).execute(&mut *transaction).await?;
    transaction.commit().await
}
