//! Databases of our own on a server.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;

use super::Failure;

/// Where a database of this name is.
pub fn url(server: &Url, name: &str) -> String {
    let mut url = server.clone();
    url.set_path(name);
    url.into()
}

/// Makes a database.
pub async fn create(server: &Url, name: &str) -> Result<(), Failure> {
    execute(server, format!("create database {name}")).await
}

/// Removes it, whoever uses it.
pub async fn remove(server: &Url, name: &str) -> Result<(), Failure> {
    execute(
        server,
        format!("drop database if exists {name} with (force)"),
    )
    .await
}

async fn execute(server: &Url, sql: String) -> Result<(), Failure> {
    let mut connection = PgConnection::connect(server.as_str()).await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}
