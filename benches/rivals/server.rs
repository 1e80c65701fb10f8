//! A PostgreSQL whose WAL can be decoded.

use std::process::Command;

use sqlx::{Connection, Executor, PgConnection};
use url::Url;

use crate::common::Failure;

const SERVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/services.sh");
/// Of the server made here: a set of its own beside the tests' one.
const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench-rivals-server");

pub enum Server {
    Given(Url),
    /// Destroyed when dropped.
    Own(Url),
}

impl Server {
    /// The given one if it will do, or one like the tests' for this run alone.
    pub async fn logical(given: &Url) -> Result<Self, Failure> {
        let mut connection = PgConnection::connect(given.as_str()).await?;
        let level: String = sqlx::query_scalar("show wal_level")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        if level == "logical" {
            return Ok(Self::Given(given.clone()));
        }
        eprintln!("wal_level is {level}: starting a PostgreSQL with logical");
        services(&["up", "postgres"])?;
        let own = Self::Own(own_url()?);
        let mut connection = PgConnection::connect(own.url().as_str()).await?;
        connection
            .execute("alter system set wal_level = logical")
            .await?;
        connection.close().await?;
        services(&["stop", "postgres"])?;
        services(&["start", "postgres"])?;
        Ok(own)
    }

    pub fn url(&self) -> &Url {
        match self {
            Self::Given(url) | Self::Own(url) => url,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Own(_) = self
            && let Err(error) = services(&["destroy"])
        {
            eprintln!("{FOLDER}: {error}");
        }
    }
}

fn own_url() -> Result<Url, Failure> {
    let environment = services(&["env"])?;
    let mut lines = environment.lines();
    let url = lines.find_map(|line| line.strip_prefix("export TEST_POSTGRES_URL="));
    Ok(url
        .ok_or("no TEST_POSTGRES_URL")?
        .trim_matches('\'')
        .parse()?)
}

fn services(arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(SERVICES)
        .args(arguments)
        .env("SERVICES_DIR", FOLDER)
        // Otherwise it would take that for the server which is meant.
        .env_remove("TEST_POSTGRES_URL")
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!("services.sh {}: {}", arguments.join(" "), message.trim()).into())
}
