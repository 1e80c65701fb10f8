//! What a client wants.

use fastrand::Rng;
use serde_json::{Value, json};

/// Of a hundred intents: sent several times at once, sent once more later, and with a key that is
/// then used for something else.
const AT_ONCE_PERCENT: u32 = 40;
const LATER_PERCENT: u32 = 25;
const REUSES_KEY_PERCENT: u32 = 3;

/// One order that somebody wants.
#[derive(Debug)]
pub struct Intent {
    /// Also what is ordered, so that each order tells whose it is.
    pub key: String,
    pub cents: i64,
    pub at_once: u32,
    pub later: u32,
    pub reuses_key: bool,
}

/// A request, ready to be sent.
pub struct Request {
    pub key: String,
    pub body: String,
}

/// What a client was told in the end.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub body: String,
    /// The header that says so.
    pub replayed: bool,
}

impl Intent {
    pub fn draw(rng: &mut Rng, name: &str, number: u32) -> Self {
        let mut chance = |percent| rng.u32(..100) < percent;
        let (at_once, later) = (chance(AT_ONCE_PERCENT), chance(LATER_PERCENT));
        let reuses_key = chance(REUSES_KEY_PERCENT);
        Self {
            key: format!("{name}-{number}"),
            cents: rng.i64(100..50_000),
            at_once: if at_once { rng.u32(2..=3) } else { 1 },
            later: u32::from(later),
            reuses_key,
        }
    }

    /// What is sent for it, or under its key.
    pub fn request(&self, cents: i64) -> Request {
        Request {
            key: self.key.clone(),
            body: json!({ "item": self.key, "cents": cents }).to_string(),
        }
    }

    /// Whether an answer says that this very order was placed.
    pub fn is_placed_by(&self, answer: &Answer) -> bool {
        let Ok(body) = serde_json::from_str::<Value>(&answer.body) else {
            return false;
        };
        let location = format!("/orders/{}", body["order"]);
        answer.status == 201
            && answer.location == Some(location)
            && body["item"] == self.key.as_str()
            && body["cents"] == self.cents
    }
}
