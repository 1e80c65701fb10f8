//! Who takes which advisory lock. All are scoped to a transaction, and named by two numbers: the outbox
//! table's oid, so that tables of one database do not meet, and a lane (`0..LANES`) or one of these.
//! Claims try for lanes; commands that change failures wait for them. (The migrator, before whom there
//! is no table, takes a lock of the other, one-number kind.)

/// The one pruner. Far from the lanes, whatever their number may come to be.
pub(super) const PRUNER: i32 = 1_000_000;
