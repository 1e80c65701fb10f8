//! The connection to the broker: opened when needed, shared, and dropped hard when it fails.
//!
//! lapin's own recovery stays off: it gives up after 16 tries, and replays what has an unknown
//! outcome. A connection that failed, or did not answer in time, is never used again; the next
//! caller opens another, which resolves the host and reads the URL's file anew.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use lapin::{Channel, Connection, Error, Event, options::ConfirmSelectOptions, types::ShortString};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    config::RabbitmqConfig,
    dial::{Socket, dial},
};
use crate::lock::lock;
use crate::sink::Unavailable;

/// How long a polite goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to the broker: at most one good connection at a time.
pub(super) struct Broker {
    config: RabbitmqConfig,
    instance: String,
    current: Mutex<Option<Arc<Link>>>,
    connecting: tokio::sync::Mutex<()>,
}

impl Broker {
    pub(super) fn new(config: RabbitmqConfig, instance: String) -> Self {
        Self {
            config,
            instance,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn config(&self) -> &RabbitmqConfig {
        &self.config
    }

    /// Whether the broker told us to stop publishing.
    pub(super) fn blocked(&self) -> bool {
        let current = lock(&self.current);
        (current.as_ref()).is_some_and(|link| link.is_up() && link.blocked_by().is_some())
    }

    /// The connection, a new one if need be.
    pub(super) async fn link(&self, deadline: Instant) -> Result<Arc<Link>, Unavailable> {
        let link = timeout_at(deadline, async {
            let _alone = self.connecting.lock().await;
            if let Some(link) = self.usable()? {
                return Ok(link);
            }
            let link = Arc::new(Link::open(&self.config, &self.instance).await?);
            *lock(&self.current) = Some(Arc::clone(&link));
            Ok(link)
        });
        link.await.unwrap_or_else(|_| {
            let address = self.config.address();
            Err(Unavailable::sink(format!(
                "{address} did not answer in time"
            )))
        })
    }

    /// The connection there is, unless it is spent.
    fn usable(&self) -> Result<Option<Arc<Link>>, Unavailable> {
        let mut current = lock(&self.current);
        let Some(link) = current.as_ref().filter(|link| link.is_up()) else {
            *current = None;
            return Ok(None);
        };
        // A blocked connection is kept, spent or not: only it will be told of the end of the alarm.
        if let Some(reason) = link.blocked_by() {
            return Err(blocked(&reason));
        }
        if link.spent.load(Ordering::Relaxed) {
            *current = None;
            return Ok(None);
        }
        Ok(Some(Arc::clone(link)))
    }

    /// Says goodbye.
    pub(super) async fn close(&self) {
        let link = lock(&self.current).take();
        if let Some(link) = link {
            let goodbye = link.connection.close(200, ShortString::default());
            if !matches!(timeout(CLOSE_TIMEOUT, goodbye).await, Ok(Ok(()))) {
                tracing::debug!("the connection to RabbitMQ was cut without a goodbye");
            }
        }
    }
}

/// One connection and its idle channels.
pub(super) struct Link {
    connection: Connection,
    /// With confirms on, and no message unanswered.
    idle: Mutex<Vec<Channel>>,
    blocked: watch::Receiver<Option<String>>,
    /// Something on it has an unknown outcome: nothing new is sent.
    spent: AtomicBool,
    socket: Socket,
}

impl Link {
    async fn open(config: &RabbitmqConfig, instance: &str) -> Result<Self, Unavailable> {
        let socket = Socket::default();
        let connection = dial(config, &socket, instance)
            .await
            .map_err(|what| Unavailable::sink(format!("cannot connect to RabbitMQ: {what}")))?;
        tracing::info!(broker = config.address(), "connected to RabbitMQ");
        Ok(Self {
            blocked: watch_blocked(connection.events_listener()),
            connection,
            idle: Mutex::default(),
            spent: AtomicBool::new(false),
            socket,
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// The largest frame, as agreed with the broker.
    pub(super) fn frame_max(&self) -> u32 {
        self.connection.configuration().frame_max()
    }

    /// A channel with confirms, for one batch alone.
    pub(super) async fn channel(&self, deadline: Instant) -> Result<Channel, Unavailable> {
        while let Some(channel) = self.take_idle() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let opened = self.within(deadline, async {
            let channel = self.connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok(channel)
        });
        let channel = opened.await?.map_err(|error| self.broken(&error))?;
        // Without confirms lapin calls every message delivered.
        if !channel.status().confirm() {
            return Err(Unavailable::sink("RabbitMQ did not turn on confirms"));
        }
        Ok(channel)
    }

    /// Takes back a channel on which every message was answered.
    pub(super) fn give_back(&self, channel: Channel) {
        lock(&self.idle).push(channel);
    }

    /// A channel for one question to the broker, whose answer may close it.
    pub(super) async fn ask<T>(
        &self,
        deadline: Instant,
        question: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> Result<lapin::Result<T>, Unavailable> {
        let answer = self.within(deadline, async {
            let channel = self.connection.create_channel().await?;
            let answer = question(&channel).await;
            if channel.status().connected() {
                channel.close(200, ShortString::default()).await?;
            }
            answer
        });
        answer.await
    }

    /// Waits for an answer, but not beyond the deadline, and not while the broker blocks us: lapin
    /// waits for ever in both cases. The connection is spent then.
    pub(super) async fn within<T>(
        &self,
        deadline: Instant,
        answer: impl Future<Output = T>,
    ) -> Result<T, Unavailable> {
        let unavailable = tokio::select! {
            biased;
            answer = answer => return Ok(answer),
            reason = self.until_blocked() => blocked(&reason),
            () = sleep_until(deadline) => Unavailable::sink("RabbitMQ did not answer in time"),
        };
        self.retire();
        Err(unavailable)
    }

    /// An error that is not about a message or a channel.
    pub(super) fn broken(&self, error: &Error) -> Unavailable {
        self.retire();
        Unavailable::sink(format!("the connection to RabbitMQ failed: {error}"))
    }

    /// Nothing new is sent on this connection. It is cut at once, so that everyone on it is told,
    /// unless the broker blocks us: a blocked one is kept to hear when the alarm ends.
    fn retire(&self) {
        self.spent.store(true, Ordering::Relaxed);
        if self.blocked_by().is_none() {
            self.socket.cut();
        }
    }

    fn take_idle(&self) -> Option<Channel> {
        lock(&self.idle).pop()
    }

    fn blocked_by(&self) -> Option<String> {
        self.blocked.borrow().clone()
    }

    async fn until_blocked(&self) -> String {
        let mut blocked = self.blocked.clone();
        loop {
            if let Some(reason) = self.blocked_by() {
                return reason;
            }
            if blocked.changed().await.is_err() {
                // lapin is gone with all its events; the answer waited for is an error.
                std::future::pending::<()>().await;
            }
        }
    }
}

fn blocked(reason: &str) -> Unavailable {
    Unavailable::sink(format!(
        "publishing is blocked by the broker: memory or disk alarm ({reason}); see rabbitmqctl status"
    ))
}

/// What the broker said last about blocking.
fn watch_blocked(
    events: impl Stream<Item = Event> + Send + 'static,
) -> watch::Receiver<Option<String>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(reason) => {
                    tracing::warn!(reason, "RabbitMQ blocks publishing");
                    sender.send_replace(Some(reason));
                }
                Event::ConnectionUnblocked => {
                    tracing::info!("RabbitMQ unblocks publishing");
                    sender.send_replace(None);
                }
                _ => {}
            }
        }
    });
    receiver
}
