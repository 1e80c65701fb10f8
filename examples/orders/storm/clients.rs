//! Clients that want orders, and ask until they know: at once several times, later once more, and
//! again whenever they did not get or did not read the answer.

mod exchange;
mod intent;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::future::try_join_all;
use tokio::{task::JoinSet, time::sleep};

use self::exchange::{Exchange, Heard};
pub use self::intent::{Answer, Intent};
use crate::Failure;

/// How many intents are pursued at the same time.
const CLIENTS: u32 = 32;
/// Of a hundred answers: lost on their way, or not read.
const THROWN_AWAY_PERCENT: u32 = 40;
/// In milliseconds. A client in the field would heed Retry-After.
const PAUSE_MS: std::ops::Range<u64> = 20..150;
/// No client asks for longer than that.
const PATIENCE: Duration = Duration::from_mins(1);

/// What was sent and heard.
#[derive(Default)]
pub struct Counts {
    /// Intents that have been pursued to their end.
    pub done: AtomicU32,
    pub sent: AtomicU32,
    pub thrown_away: AtomicU32,
    pub first: AtomicU32,
    pub replayed: AtomicU32,
    pub in_progress: AtomicU32,
    pub key_reused: AtomicU32,
    pub unavailable: AtomicU32,
    /// Connections that were refused or broken off.
    pub unanswered: AtomicU32,
}

/// All clients.
pub struct Clients {
    intents: Arc<[Intent]>,
    pursuit: Arc<Pursuit>,
    seed: u64,
}

/// What was answered to an intent, to each of those who asked.
pub type Answers = Vec<Vec<Answer>>;

impl Clients {
    pub fn new(services: [SocketAddr; 2], intents: u32, seed: u64, name: &str) -> Self {
        let mut rng = Rng::with_seed(seed);
        let intents = (0..intents).map(|number| Intent::draw(&mut rng, name, number));
        Self {
            intents: intents.collect(),
            pursuit: Arc::new(Pursuit {
                exchange: Exchange::new(services),
                counts: Arc::default(),
            }),
            seed,
        }
    }

    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.pursuit.counts)
    }

    pub fn intents(&self) -> &[Intent] {
        &self.intents
    }

    /// Pursues all intents; gives the answers, in their order.
    pub async fn run(&self) -> Result<Answers, Failure> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        let mut seeds = Rng::with_seed(self.seed);
        for _ in 0..CLIENTS {
            let (intents, pursuit) = (Arc::clone(&self.intents), Arc::clone(&self.pursuit));
            let (next, mut rng) = (Arc::clone(&next), seeds.fork());
            clients.spawn(async move {
                let mut answers = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(intent) = intents.get(number) else {
                        return Ok::<_, Failure>(answers);
                    };
                    answers.push((number, pursuit.pursue(intent, &mut rng).await?));
                    pursuit.counts.done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut answers = vec![Vec::new(); self.intents.len()];
        while let Some(client) = clients.join_next().await {
            for (number, heard) in client?? {
                answers[number] = heard;
            }
        }
        Ok(answers)
    }
}

struct Pursuit {
    exchange: Exchange,
    counts: Arc<Counts>,
}

impl Pursuit {
    /// Asks as often as the intent says; gives what was answered.
    async fn pursue(&self, intent: &Intent, rng: &mut Rng) -> Result<Vec<Answer>, Failure> {
        let at_once = (0..intent.at_once).map(|_| self.insist(intent, intent.cents, rng.fork()));
        let mut answers = try_join_all(at_once).await?;
        for _ in 0..intent.later {
            sleep(Duration::from_millis(rng.u64(PAUSE_MS))).await;
            answers.push(self.insist(intent, intent.cents, rng.fork()).await?);
        }
        if intent.reuses_key {
            // Another body under the same key.
            answers.push(self.insist(intent, intent.cents + 1, rng.fork()).await?);
        }
        Ok(answers)
    }

    /// Asks until there is an answer that says yes or no.
    async fn insist(&self, intent: &Intent, cents: i64, mut rng: Rng) -> Result<Answer, Failure> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            count(&self.counts.sent);
            let throw_away = rng.u32(..100) < THROWN_AWAY_PERCENT;
            // Half of those hang up before the answer; the others get it, and lose it.
            let hang_up =
                (throw_away && rng.bool()).then(|| Duration::from_micros(rng.u64(..10_000)));
            let request = intent.request(cents);
            let heard = self.exchange.ask(rng.usize(..2), request, hang_up).await?;
            if throw_away {
                count(&self.counts.thrown_away);
                continue;
            }
            self.note(&heard);
            match heard {
                Heard::Final(answer) => return Ok(answer),
                _ => sleep(Duration::from_millis(rng.u64(PAUSE_MS))).await,
            }
        }
        Err(format!("no answer to {} within {PATIENCE:?}", intent.key).into())
    }

    fn note(&self, heard: &Heard) {
        let counts = &self.counts;
        count(match heard {
            Heard::Nothing => &counts.unanswered,
            Heard::InProgress => &counts.in_progress,
            Heard::Unavailable => &counts.unavailable,
            Heard::Final(answer) if answer.status == 422 => &counts.key_reused,
            Heard::Final(answer) if answer.replayed => &counts.replayed,
            Heard::Final(_) => &counts.first,
        });
    }
}

fn count(counter: &AtomicU32) {
    counter.fetch_add(1, Ordering::Relaxed);
}
