//! LISTEN: wake-ups from the optional trigger, over a direct connection. Through a transaction-pooling
//! PgBouncer a LISTEN is accepted and dead, hence a URL of its own.

use std::{future::Future, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgListener, PgPoolOptions};

use super::{Names, error::DbError};

/// The channel that `migrations/notify.sql` notifies on; the payload is the table.
const CHANNEL: &str = "outboxd";

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
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    tokio::select! {
        () = listening => {}
        () = stopped => {}
    }
}

async fn listen_once(url: &SecretString, names: &Names, wake: &impl Fn()) -> Result<(), DbError> {
    let sql = |error| DbError::sql("listen", error);
    let options = super::url::connect_options(url.expose_secret()).map_err(DbError::settings)?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .map_err(sql)?;
    let mut listener = PgListener::connect_with(&pool).await.map_err(sql)?;
    listener.listen(CHANNEL).await.map_err(sql)?;
    tracing::info!("listening for notifications");
    loop {
        // None: the connection was lost and is back; something may have been missed.
        match listener.try_recv().await.map_err(sql)? {
            Some(notification) if notification.payload() != names.display() => {}
            _ => wake(),
        }
    }
}
