//! LISTEN: wake-ups from the optional trigger, over a direct connection. Through a transaction-pooling
//! PgBouncer a LISTEN is accepted and dead, hence a URL of its own.
//!
//! A listener only ever reads, and would wait for ever on a connection whose other end is gone without
//! a word. So it asks for an answer now and then, and connects anew where none comes.

use std::{future::Future, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Executor,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::timeout;

use super::{Names, error::DbError};

/// The channel that `migrations/notify.sql` notifies on; the payload is the table.
const CHANNEL: &str = "outboxd";
/// After this long without a word, the server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait before connecting anew.
const PAUSE: Duration = Duration::from_secs(5);

/// Calls `wake` for each notification about the table, until `stopped`. Reconnects by itself.
pub async fn listen(
    url: &SecretString,
    names: &Names,
    wake: impl Fn(),
    stopped: impl Future<Output = ()>,
) {
    let listening = async {
        loop {
            if let Err(error) = listen_once(url, names, &wake).await {
                tracing::warn!(%error, "not listening for notifications: polling only");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = listening => {}
        () = stopped => {}
    }
}

/// Listens until the connection is lost.
async fn listen_once(url: &SecretString, names: &Names, wake: &impl Fn()) -> Result<(), DbError> {
    let mut listener = answer(connect(url)).await?;
    tracing::info!("listening for notifications");
    // Something may have been missed until now.
    wake();
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(notification))) if notification.payload() != names.display() => {}
            Ok(Ok(Some(_))) => wake(),
            Ok(Ok(None)) => {
                tracing::info!("the connection for notifications was lost");
                return Ok(());
            }
            Ok(Err(error)) => return Err(sql(error)),
            Err(_) => {
                answer(async { listener.execute("select 1").await.map_err(sql) }).await?;
            }
        }
    }
}

async fn connect(url: &SecretString) -> Result<PgListener, DbError> {
    let options = super::url::connect_options(url.expose_secret()).map_err(DbError::settings)?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .map_err(sql)?;
    let mut listener = PgListener::connect_with(&pool).await.map_err(sql)?;
    // Reading may be cancelled, reconnecting may not.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await.map_err(sql)?;
    Ok(listener)
}

/// What the server answers, if it does so in time.
async fn answer<T>(answering: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    let answered = timeout(ANSWER, answering).await;
    answered.unwrap_or_else(|_| Err(DbError::deadline("listen", ANSWER)))
}

fn sql(error: sqlx::Error) -> DbError {
    DbError::sql("listen", error)
}
