//! The claim protocol as a model: every interleaving of small sizes is walked through.
//!
//! What `outbox::claim`, `outbox::settle` and `relay::{worker, batch}` do, statement by statement, with
//! processes that die or hang, transactions that the server ends under a process which goes on, lost
//! answers and late arrivals, refusals, strangers' locks, writers that commit late. The floors are the
//! shipped code itself. Checked in every state: each key's events first arrive in order, nothing is
//! settled that did not arrive, and the lemma, that every sender's run begins at its key's first
//! unsettled event; and from every state there is a way to the end. (Without faults a fair schedule
//! therefore gets there.) Waiting times are left out: whatever may come to pass may come at any time.
//!
//! That the model can fail is shown by [`Defect`]s: each leads to a counterexample.
//!
//! The explorer is our own, not `stateright`: its "eventually" stops at the first path that joins
//! another, so that it cannot say "from every state the end can be reached", and it brings a web server.
//!
//! `CLAIM_MODEL=large` walks through larger sizes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod claiming;
mod database;
mod defects;
mod explorer;
mod scenarios;
mod sending;
mod state;
mod world;

use explorer::{Verdict, explore};
use state::{Outcome, Scenario};

/// What may happen. Numbers are workers, processes, or the ids of events.
#[derive(Debug, Clone)]
pub enum Step {
    Begin(usize),
    BeginLooking(usize),
    FindLanes(usize),
    LockLanes(usize),
    FindEmptyLanes(usize),
    LookAtWriters(usize),
    NoteWriters(usize),
    ReadFailures(usize),
    ReadRows(usize),
    CompareWithStrangers(usize),
    Answer(usize, i64, Outcome),
    Settle(usize),
    SettleInVain(usize),
    SettleUnheard(usize),
    RaiseFloors(usize),
    PayDebt(usize),
    FindTransactionGone(usize),
    EndTransaction(usize),
    Crash(usize),
    Hang(usize),
    TimeOut(usize),
    ArriveLate(i64),
    DrawId(i64),
    Prepare(i64),
    Commit(i64),
    RollBack(i64),
    BecomeDue(i64),
    StrangerLocks(i64),
    StrangerLeaves(i64),
    Redrive(i64),
    Discard(i64),
    Pause(usize),
    Resume(usize),
    FallAfterResuming(usize),
}

/// A mistake that could be made in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Defect {
    /// Rows and failures are read with the snapshot of the statement that takes the locks.
    ReadsWithTheLock,
    LocksNoLane,
    PassesStrangers,
    RaisesPastStrangers,
    RaisesPastUnsettled,
    SettlesPastFailures,
    SettlesBeforeConfirms,
    SendsBehindARefusal,
    RetryHoldsNothing,
    HasNoIdleTimeout,
    /// The horizon is a bare `max(id)`.
    LooksAtNoWriter,
    /// The horizon of a claim is that of its end.
    TakesTheHorizonLate,
    NeverFallsToFirm,
    RaisesAfterAFall,
    ResumesWithoutAFall,
}

/// Explores and says how large it was; a counterexample fails the test.
fn check(scenario: &Scenario) {
    let started = std::time::Instant::now();
    match explore(scenario) {
        Verdict::Holds { states, steps } => {
            println!("{states} states, {steps} steps, {:?}", started.elapsed());
        }
        Verdict::Broken(what, path) => panic!("{what}: {path:?}"),
        Verdict::Stuck(path) => panic!("there is no way to the end from here: {path:?}"),
    }
}
