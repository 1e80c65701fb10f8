//! All workloads.

use async_trait::async_trait;

use crate::{
    Bench,
    common::Failure,
    drains::Drain,
    idle::Idle,
    keys::{Held, Hot, ManyKeys},
    mapped::Mapped,
    payloads::Large,
    replicas::Replicas,
    report::Results,
    sink::Kind,
    stage::Mode,
    steady::Steady,
    tables::{Backlog, LongTransaction, Retained},
};

/// A workload, in so many rounds.
#[async_trait(?Send)]
pub trait Cell {
    fn name(&self) -> String;

    /// What was measured before an error is kept.
    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure>;
}

/// In the order in which they run.
pub fn all() -> Vec<Box<dyn Cell>> {
    let mut all: Vec<Box<dyn Cell>> = Vec::new();
    for kind in Kind::ALL {
        for mode in Mode::ALL {
            all.push(Box::new(Drain(kind, mode)));
        }
    }
    for kind in Kind::ALL {
        all.push(Box::new(Steady(kind)));
    }
    all.push(Box::new(Hot(Kind::Kafka, None)));
    for order in ["strict", "pipelined"] {
        all.push(Box::new(Hot(Kind::Quorum, Some(order))));
    }
    for kind in [Kind::Kafka, Kind::Quorum] {
        all.push(Box::new(ManyKeys(kind)));
        all.push(Box::new(Held(kind)));
    }
    for kind in Kind::ALL {
        all.push(Box::new(Large(kind)));
    }
    for mapped in [Mapped::Number, Mapped::UuidAndTime] {
        all.push(Box::new(mapped));
    }
    all.push(Box::new(Retained));
    all.push(Box::new(Backlog));
    for mode in Mode::ALL {
        all.push(Box::new(LongTransaction(mode)));
    }
    for kind in [Kind::Kafka, Kind::Quorum] {
        all.push(Box::new(Replicas(kind)));
        all.push(Box::new(Idle(kind)));
    }
    all
}
