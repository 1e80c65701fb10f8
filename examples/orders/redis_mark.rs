//! Marks in Redis: who sets one first has it, and only who has it removes it.

use std::{sync::LazyLock, time::Duration};

use redis::{
    Client, RedisResult, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

/// Removes a mark if it is still the caller's. Looking first and deleting then, in two commands, would
/// sometimes remove the mark of somebody who came in between.
static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0",
    )
});

/// A connection that is made when it is first used, and made again when it was lost. While Redis is
/// away each command fails within twice this time; the next one tries anew.
pub fn connect(url: &str, timeout: Duration) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
        .set_number_of_retries(0);
    ConnectionManager::new_lazy_with_config(Client::open(url)?, config)
}

/// Sets a mark, unless there is one. Gives the one that is there now: the caller's own if it was set,
/// now or by an earlier try whose answer was lost.
pub async fn set_first(
    redis: &ConnectionManager,
    key: &str,
    mark: &str,
    ttl: Duration,
) -> RedisResult<Option<String>> {
    // What `set … nx get` does in one command, for servers before 7.0. `None`: it has just expired.
    let mut both = redis::pipe();
    both.cmd("SET").arg(key).arg(mark);
    both.arg("NX").arg("PX").arg(milliseconds(ttl)).ignore();
    both.cmd("GET").arg(key);
    let (there,) = both.query_async(&mut redis.clone()).await?;
    Ok(there)
}

/// Sets a mark, whatever was there.
pub async fn set(
    redis: &ConnectionManager,
    key: &str,
    mark: &str,
    ttl: Duration,
) -> RedisResult<()> {
    let mut set = redis::cmd("SET");
    set.arg(key).arg(mark).arg("PX").arg(milliseconds(ttl));
    set.query_async(&mut redis.clone()).await
}

/// Whether there is a mark.
pub async fn is_set(redis: &ConnectionManager, key: &str) -> RedisResult<bool> {
    let mut exists = redis::cmd("EXISTS");
    exists.arg(key).query_async(&mut redis.clone()).await
}

/// Removes a mark if it is still the caller's.
pub async fn remove(redis: &ConnectionManager, key: &str, mark: &str) -> RedisResult<()> {
    let mut invocation = REMOVE.key(key);
    let removed: i64 = invocation
        .arg(mark)
        .invoke_async(&mut redis.clone())
        .await?;
    tracing::trace!(key, removed, "mark");
    Ok(())
}

/// As Redis wants it: at least one, at most some ten million years.
fn milliseconds(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).map_or(u64::MAX >> 10, |ttl| ttl.clamp(1, u64::MAX >> 10))
}
