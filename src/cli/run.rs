//! `outboxd run` and `outboxd drain`.

use std::{
    io::IsTerminal,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{exit, relay_args::RelayArgs, report};
use crate::{
    http,
    outbox::DbError,
    relay::{Relay, RunError},
};

/// How often `drain` looks whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a drain that can go no further rests between two counts, at most.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Relays until told to stop: SIGTERM or SIGINT. A second signal ends it at once.
pub async fn run(args: RelayArgs) -> ExitCode {
    let config = match args.validate() {
        Ok(config) => config,
        Err(problems) => return report(&problems),
    };
    let listener = match http::bind(config.listen).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("outboxd: --listen {}: {error}", config.listen);
            return ExitCode::from(exit::CONFIG);
        }
    };
    let (address, notify, names) = (
        listener.local_addr(),
        config.notify.clone(),
        config.database.names.clone(),
    );
    let relay = match start(config) {
        Ok(relay) => relay,
        Err(code) => return code,
    };
    if let Ok(address) = address {
        tracing::info!(%address, "serving the status page, /metrics, /livez, /readyz and POST /wake");
    }
    let stop = stop_on_signals();
    let served = serve(listener, &relay);
    if let Some(url) = notify {
        let (waking, stopped) = (Arc::clone(&relay), stop.clone());
        tokio::spawn(async move {
            crate::outbox::listen(&url, &names, || waking.wake(), stopped.cancelled()).await;
        });
    }
    let ended = relay.run(stop).await;
    served.cancel();
    finish(ended)
}

/// Relays until nothing but dead letters, and what they hold, is left.
pub async fn drain(args: RelayArgs) -> ExitCode {
    let mut config = match args.validate() {
        Ok(config) => config,
        Err(problems) => return report(&problems),
    };
    // It may run beside a relay of the same name, and must not be taken for its restart.
    config.settings.instance = format!("drain@{}", config.settings.instance);
    let relay = match start(config) {
        Ok(relay) => relay,
        Err(code) => return code,
    };
    let stop = stop_on_signals();
    let watching = tokio::spawn(stop_when_drained(Arc::clone(&relay), stop.clone()));
    let ended = relay.run(stop.clone()).await;
    stop.cancel();
    match (ended, watching.await) {
        (Ok(()), Ok(Some(published))) => {
            tracing::info!(published, "drained");
            ExitCode::SUCCESS
        }
        (Ok(()), _) => {
            tracing::warn!("stopped before everything was published");
            ExitCode::from(exit::FAILURE)
        }
        (ended, _) => finish(ended),
    }
}

fn start(config: super::relay_args::RelayConfig) -> Result<Arc<Relay>, ExitCode> {
    let mut config = config;
    if let Some(logs) = config.logs.take() {
        logs.start();
    }
    super::environment::warn_about_unknown();
    config.log();
    config.relay().map_err(|error| {
        eprintln!("outboxd: {error}");
        ExitCode::from(exit::CONFIG)
    })
}

fn serve(listener: TcpListener, relay: &Arc<Relay>) -> CancellationToken {
    let stopped = CancellationToken::new();
    let (relay, until) = (Arc::clone(relay), stopped.clone());
    tokio::spawn(async move {
        if let Err(error) = http::serve(listener, relay, until.cancelled_owned()).await {
            tracing::error!(%error, "the HTTP server ended: delivery goes on without metrics");
        }
    });
    stopped
}

fn finish(ended: Result<(), RunError>) -> ExitCode {
    match ended {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let remedy = match &error {
                RunError::Table(error) => error.remedy(),
                RunError::NotDrained => None,
            };
            tracing::error!(%error, remedy, "outboxd ends");
            ExitCode::from(match error {
                RunError::Table(error) if error.is_privilege() => exit::NO_PERMISSION,
                RunError::Table(_) => exit::CONFIG,
                RunError::NotDrained => exit::FAILURE,
            })
        }
    }
}

/// Cancelled at the first SIGTERM or SIGINT; the second ends the process at once. (A process that is
/// PID 1 of a container ignores both unless it asks for them.)
pub(super) fn stop_on_signals() -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::spawn(async move {
                for first in [true, false] {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    if !first {
                        tracing::warn!("second signal: ending at once");
                        std::process::exit(exit::FAILURE.into());
                    }
                    stopping.cancel();
                }
            });
        }
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "signals cannot be caught"),
    }
    stop
}

/// Cancels `stop` once nothing is left; gives the number of events published meanwhile, or `None`
/// when stopped before.
async fn stop_when_drained(relay: Arc<Relay>, stop: CancellationToken) -> Option<u64> {
    let bar = progress();
    let published = relay.metrics().published_total();
    let mut link = None;
    let mut rest_until = Instant::now();
    let mut seen = None;
    loop {
        let moved = seen.replace(published.get()) != Some(published.get());
        bar.set_position(published.get());
        bar.set_length(published.get() + relay.metrics().pending_events.get().unsigned_abs());
        bar.set_message(relay.unready().unwrap_or_default());
        // Only when claims come back empty: there is something to do until then.
        if !moved && !relay.finds_work() && Instant::now() >= rest_until {
            let mut started = Instant::now();
            match is_anything_left(&relay, &mut link, &mut started).await {
                Ok(false) => break,
                Ok(true) => {}
                // The relay itself says what is wrong, and waits.
                Err(error) => {
                    link = None;
                    tracing::debug!(%error, "looking for what is left");
                }
            }
            rest_until = Instant::now() + (started.elapsed() * 20).min(LONGEST_REST);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return None,
        }
    }
    bar.finish_and_clear();
    stop.cancel();
    Some(published.get())
}

async fn is_anything_left(
    relay: &Relay,
    link: &mut Option<crate::outbox::Link>,
    started: &mut Instant,
) -> Result<bool, DbError> {
    let link = match link {
        Some(link) => link,
        None => link.insert(relay.outbox().link().await?),
    };
    // To connect takes time once only.
    *started = Instant::now();
    relay.outbox().is_anything_left(link).await
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{bar:40} {pos}/{len} events, {per_sec}, {eta} left {wide_msg}",
    );
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
