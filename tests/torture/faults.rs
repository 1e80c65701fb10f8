//! Faults, and how they are done to a running storm.

use std::time::{Duration, Instant};

use fastrand::Rng;
use sqlx::Connection as _;
use tokio::time::{sleep, timeout};

use crate::{
    common::{
        proxy::{Fault as Network, Proxy},
        rabbitmq,
        relay::{PATIENCE, Relay, outboxd, until},
    },
    history::{Injected, RECOVERY},
    storm::Storm,
};

/// What is done to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// SIGKILL; another relay in its place.
    Kill,
    /// SIGTERM: the relay has to end in order. Not a fault: it explains no duplicate.
    Stop,
    /// The same while what it publishes stands still on its way to the broker.
    StopPublishing,
    /// SIGSTOP, and SIGCONT up to 20 s later: longer than a claim's transaction may idle.
    Freeze,
    /// SIGSTOP in the midst of a claim, for good: a lost host.
    Lose,
    /// The relays' sessions are terminated by the server.
    Terminate,
    /// A stranger locks the table for a schema change.
    LockTable,
    /// A stranger locks some pending rows.
    LockRows,
    /// A trigger keeps the relays from marking what they published.
    RefuseMarks,
    /// An operator redrives all dead letters: they will be dead again.
    Redrive,
    /// An operator discards all dead letters, and so frees the keys that they hold.
    Discard,
    /// A destination comes to be that some events have waited for.
    CreateLate,
    /// RabbitMQ: the exchange has no queue to route to for a while.
    Unbind,
    /// The database takes no writes, as after a failover to a standby.
    ReadOnly,
    /// The network between the relays and the database.
    DatabaseNetwork(Network),
    /// The network between the relays and the broker.
    BrokerNetwork(Network),
    /// PostgreSQL's own restart.
    RestartPostgres,
    /// SIGKILL of PostgreSQL.
    KillPostgres,
    /// The broker's own restart.
    RestartBroker,
    /// SIGKILL of the broker.
    KillBroker,
}

/// Strikes on relays and sessions: what a test may do on servers that others use too.
pub const SMALL: &[Strike] = &[
    Strike::Stop,
    Strike::Freeze,
    Strike::Terminate,
    Strike::LockTable,
    Strike::LockRows,
    Strike::Redrive,
    Strike::Discard,
    Strike::DatabaseNetwork(Network::Cut),
    Strike::DatabaseNetwork(Network::Reset),
    Strike::DatabaseNetwork(Network::Blackhole),
    Strike::DatabaseNetwork(Network::HalfOpen),
    Strike::DatabaseNetwork(Network::Stall),
    Strike::DatabaseNetwork(Network::Slow),
    Strike::DatabaseNetwork(Network::Slice),
];

/// Strikes on servers and on the way to the broker: for servers of one's own.
pub const LARGE: &[Strike] = &[
    Strike::ReadOnly,
    Strike::BrokerNetwork(Network::Cut),
    Strike::BrokerNetwork(Network::Reset),
    Strike::BrokerNetwork(Network::Blackhole),
    Strike::BrokerNetwork(Network::HalfOpen),
    Strike::BrokerNetwork(Network::Stall),
    Strike::BrokerNetwork(Network::Slow),
    Strike::BrokerNetwork(Network::Slice),
    Strike::RestartPostgres,
    Strike::KillPostgres,
    Strike::RestartBroker,
    Strike::KillBroker,
];

/// For how long what a fault broke may show: deadlines of the relays, and the consumer's delay.
const ECHO: Duration = Duration::from_secs(10);

impl Strike {
    /// A server that has just been started may take long to answer.
    fn echo(self) -> Duration {
        match self {
            Self::RestartPostgres | Self::KillPostgres | Self::RestartBroker | Self::KillBroker => {
                RECOVERY
            }
            _ => ECHO,
        }
    }

    /// How many events may arrive again, where each relay has so many in flight.
    fn may_repeat(self, replicas: usize, in_flight: usize) -> usize {
        match self {
            Self::Stop
            | Self::StopPublishing
            | Self::LockTable
            | Self::LockRows
            | Self::Unbind
            | Self::Redrive
            | Self::Discard
            | Self::CreateLate => 0,
            Self::Kill | Self::Freeze | Self::Lose => in_flight,
            _ => replicas * in_flight,
        }
    }
}

impl Storm {
    fn broker_proxy(&self) -> &Proxy {
        self.broker_proxy.as_ref().expect("a proxy of its own")
    }

    /// Strikes, heals, and notes it.
    pub async fn strike(&mut self, strike: Strike) {
        let from = self.now();
        let detail = self.inflict(strike).await;
        let until = self.now();
        self.faults.push(Injected {
            what: format!("{strike:?}{detail}"),
            from,
            until,
            echo: strike.echo(),
            may_repeat: strike.may_repeat(self.replicas, self.in_flight),
        });
    }

    async fn inflict(&mut self, strike: Strike) -> String {
        match strike {
            Strike::Kill => {
                let victim = self.take_relay().await;
                self.keep_log(&victim);
                drop(victim);
                self.start_relay();
            }
            Strike::Stop => return self.stop_relay().await,
            Strike::StopPublishing => return self.stop_publishing().await,
            Strike::Freeze => return self.freeze().await,
            Strike::Lose => self.lose_relay().await,
            Strike::Terminate => {
                let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                            where datname = current_database() and application_name like 'outboxd/%'";
                return format!(" of {}", self.database.number(sql).await);
            }
            Strike::Redrive => return self.change_dead("retry"),
            Strike::Discard => return self.change_dead("discard"),
            Strike::CreateLate => self.create_late().await,
            Strike::LockTable => {
                let pause = self.rng.u64(100..4000);
                // A claim may be in the way for as long as it publishes.
                self.try_in_database(&format!(
                    "begin; set local lock_timeout = '8s'; lock table outbox in access exclusive mode;
                     select pg_sleep({pause} / 1000.0); commit"
                ))
                .await;
            }
            Strike::LockRows => return self.lock_rows().await,
            Strike::RefuseMarks => self.refuse_marks().await,
            Strike::Unbind => {
                rabbitmq::unbind(&self.broker.address, &self.topic).await;
                sleep(Duration::from_secs(1)).await;
                rabbitmq::bind(&self.broker.address, &self.topic).await;
            }
            Strike::ReadOnly => self.read_only().await,
            Strike::DatabaseNetwork(fault) => {
                self.database_proxy.set(fault);
                sleep(pause(&mut self.rng)).await;
                self.database_proxy.heal();
            }
            Strike::BrokerNetwork(fault) => {
                self.broker_proxy().set(fault);
                sleep(pause(&mut self.rng)).await;
                self.broker_proxy().heal();
            }
            Strike::RestartPostgres => self.control_server("postgres", "stop").await,
            Strike::KillPostgres => self.control_server("postgres", "kill").await,
            Strike::RestartBroker => self.control_server(self.broker.kind.server(), "stop").await,
            Strike::KillBroker => self.control_server(self.broker.kind.server(), "kill").await,
        }
        String::new()
    }

    /// What an operator does about dead letters; in vain where a relay works on their lanes for long.
    pub fn change_dead(&self, how: &str) -> String {
        let (code, said, errors) =
            outboxd(&["dead", how, "--all", "--database-url", &self.database.url]);
        let last = if code == 0 { said } else { errors };
        format!(": {}", last.trim().lines().last().unwrap_or_default())
    }

    /// One relay stands still from now on; the storm goes on, and wakes it in time.
    async fn freeze(&mut self) -> String {
        let pause = Duration::from_millis(self.rng.u64(500..20_000));
        let relay = self.take_relay().await;
        relay.signal("-STOP");
        let wakes = self.now() + pause;
        self.frozen.push((wakes, relay));
        self.start_relay();
        format!(", to wake at {wakes:?}")
    }

    /// A relay is told to stop while messages of its are under way, which go on once it is deaf to that.
    async fn stop_publishing(&mut self) -> String {
        let mut relay = self.take_relay().await.ready().await;
        self.broker_proxy().set(Network::Stall);
        let claims = open_claims(&relay);
        until("it holds a claim open", || async {
            self.write_more();
            self.database.number(&claims).await > 0
        })
        .await;
        relay.signal("-TERM");
        // One that waits for its messages has not ended by then.
        drop(timeout(Duration::from_secs(1), relay.ended()).await);
        self.broker_proxy().heal();
        self.replace_relay(relay).await
    }

    /// A relay is stopped while it holds a claim open, and another takes its place.
    async fn lose_relay(&mut self) {
        let relay = self.take_relay().await.ready().await;
        let claims = open_claims(&relay);
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "it never held a claim open");
            self.write_more();
            relay.signal("-STOP");
            // What it had asked for before is done by then.
            sleep(Duration::from_millis(50)).await;
            if self.database.number(&claims).await > 0 {
                break;
            }
            relay.signal("-CONT");
            sleep(Duration::from_millis(self.rng.u64(1..20))).await;
        }
        self.lost.push(relay);
        self.start_relay();
    }

    /// A stranger locks pending rows; while it does, more of their keys are written.
    async fn lock_rows(&mut self) -> String {
        const ROWS: &str =
            "select id from outbox where id in (select id from outbox where published_at is null
            order by id desc limit 200) order by id for update skip locked";
        let mut stranger = self.database.connect().await;
        sqlx::raw_sql("begin").execute(&mut stranger).await.unwrap();
        let mut locked = 0;
        while locked == 0 && self.write_more() {
            let rows = sqlx::query(ROWS).fetch_all(&mut stranger).await;
            locked = rows.map_or(0, |rows| rows.len());
        }
        for _ in 0..self.rng.u32(2..20) {
            self.write_more();
            sleep(Duration::from_millis(self.rng.u64(50..150))).await;
        }
        stranger.close().await.unwrap();
        format!(" {locked} of them")
    }

    async fn refuse_marks(&mut self) {
        self.database
            .execute(
                "create function refuse() returns trigger language plpgsql as
                     $$ begin raise exception 'no'; end $$;
                 create trigger refuse before update or delete on outbox
                     for each row execute function refuse()",
            )
            .await;
        until("marking has failed several times", || async {
            self.settle_errors().await > 4.0
        })
        .await;
        self.database
            .execute("drop trigger refuse on outbox; drop function refuse()")
            .await;
    }

    async fn read_only(&mut self) {
        let name = &self.database.name;
        let set = |to: &str| format!("alter database {name} {to}");
        let sessions = "select pg_terminate_backend(pid) from pg_stat_activity
                         where datname = current_database() and application_name like 'outboxd/%'";
        let on = set("set default_transaction_read_only = on");
        self.database.execute(&on).await;
        self.database.execute(sessions).await;
        sleep(pause(&mut self.rng)).await;
        // The writers' sessions end as well: those begun in between would stay so.
        let sessions = "begin; set transaction read write;
            select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid(); commit";
        let off = set("reset default_transaction_read_only");
        self.database
            .execute(&format!("begin; set transaction read write; {off}; commit"))
            .await;
        self.database.execute(sessions).await;
    }
}

fn pause(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(200..6000))
}

/// How many claims of a relay are open, and wait for the broker.
fn open_claims(relay: &Relay) -> String {
    format!(
        "select count(*) from pg_stat_activity join pg_locks using (pid)
          where datname = current_database() and application_name like 'outboxd/%:{}'
            and state = 'idle in transaction' and locktype = 'advisory' and objid < 64",
        relay.port()
    )
}
