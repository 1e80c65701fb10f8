//! Locking, also after a panic elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. What is locked so is whole at any time: a panic leaves no half a change behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
