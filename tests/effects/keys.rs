//! Idempotency keys.

use std::{sync::Arc, time::Duration};

use sqlx::{Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};
use tokio::{sync::Barrier, task::JoinSet};

use crate::{
    common::{database::Database, relay::PATIENCE, unique},
    lab::{
        Outcome, begin, code, complete, database, effect, outcome, release, response, try_begin,
    },
};

/// So many requests with one key, all at once; gives what each heard.
async fn at_once(database: &Database, requests: usize, key: &str, seconds: f64) -> Vec<Outcome> {
    let barrier = Arc::new(Barrier::new(requests));
    let mut all = JoinSet::new();
    for _ in 0..requests {
        let (barrier, key) = (Arc::clone(&barrier), key.to_owned());
        // As through a pooler one must: without startup options, without named statements.
        let options: PgConnectOptions = database.through_pgbouncer().parse().unwrap();
        let options = options.extra_float_digits(None);
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        all.spawn(async move {
            barrier.wait().await;
            let sql = format!(
                "select outcome, token::text, status, headers::text, body
                   from idempotency_begin('u', '{key}', 'h', make_interval(secs => {seconds}), '1 day')"
            );
            let row = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .fetch_one(&mut connection)
                .await;
            outcome(&row.unwrap())
        });
    }
    all.join_all().await
}

fn started(outcomes: &[Outcome]) -> usize {
    let is_started = |outcome: &&Outcome| matches!(outcome, Outcome::Started(_));
    outcomes.iter().filter(is_started).count()
}

#[tokio::test]
async fn a_request_is_started_once_and_then_replayed() {
    let database = database().await;
    let connection = &mut database.connect().await;
    let token = begin(connection, "k", "h", 30.0).await;
    assert_eq!(begin(connection, "k", "h", 30.0).await, Outcome::InProgress);
    effect(connection, "k", token.token()).await.unwrap();
    assert_eq!(begin(connection, "k", "h", 30.0).await, response());
    assert_eq!(begin(connection, "k", "h", 30.0).await, response());
}

#[tokio::test]
async fn the_same_key_with_another_request_is_a_mismatch() {
    let database = database().await;
    let connection = &mut database.connect().await;
    let token = begin(connection, "k", "h", 30.0).await;
    assert_eq!(
        begin(connection, "k", "other", 30.0).await,
        Outcome::Mismatch
    );
    effect(connection, "k", token.token()).await.unwrap();
    assert_eq!(
        begin(connection, "k", "other", 30.0).await,
        Outcome::Mismatch
    );
}

#[tokio::test]
async fn two_users_may_choose_the_same_key() {
    let database = database().await;
    let sql = "select count(*) from (values ('a'), ('b')) v (scope),
                 idempotency_begin(scope, 'k', 'h', '30 s', '1 day') where outcome = 'started'";
    assert_eq!(database.number(sql).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_is_started() {
    let database = database().await;
    let outcomes = at_once(&database, 60, "k", 30.0).await;
    assert_eq!(started(&outcomes), 1, "{outcomes:?}");
    let waiting = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::InProgress);
    assert_eq!(waiting.count(), 59);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_key_is_taken_over_by_one_and_its_late_holder_rolls_back() {
    let database = database().await;
    let connection = &mut database.connect().await;
    let late = begin(connection, "k", "h", 0.001).await;
    database.execute("select pg_sleep(0.01)").await;
    let outcomes = at_once(&database, 20, "k", 30.0).await;
    assert_eq!(started(&outcomes), 1, "{outcomes:?}");
    assert_eq!(code(effect(connection, "k", late.token()).await), "OX001");
    assert!(
        !release(connection, late.token()).await,
        "it is another's now"
    );
    assert_eq!(database.number("select count(*) from effects").await, 0);
    let heir = outcomes
        .iter()
        .find(|outcome| started(&[(*outcome).clone()]) == 1);
    effect(connection, "k", heir.unwrap().token())
        .await
        .unwrap();
    assert_eq!(begin(connection, "k", "h", 30.0).await, response());
}

#[tokio::test]
async fn a_late_holder_that_nobody_took_over_from_completes() {
    let database = database().await;
    let connection = &mut database.connect().await;
    let late = begin(connection, "k", "h", 0.001).await;
    database.execute("select pg_sleep(0.01)").await;
    effect(connection, "k", late.token()).await.unwrap();
    assert_eq!(begin(connection, "k", "h", 30.0).await, response());
}

#[tokio::test]
async fn a_key_that_is_being_completed_late_is_in_progress_and_nobody_waits() {
    let database = database().await;
    let (holder, other) = (&mut database.connect().await, &mut database.connect().await);
    let token = begin(holder, "k", "h", 0.001).await;
    database.execute("select pg_sleep(0.01)").await;
    let mut transaction = holder.begin().await.unwrap();
    complete(&mut transaction, token.token()).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, begin(other, "k", "h", 30.0)).await;
    assert_eq!(heard, Ok(Outcome::InProgress));
    transaction.commit().await.unwrap();
    assert_eq!(begin(other, "k", "h", 30.0).await, response());
}

#[tokio::test]
async fn nobody_waits_for_the_effect_of_another() {
    let database = database().await;
    let (holder, other) = (&mut database.connect().await, &mut database.connect().await);
    let token = begin(holder, "k", "h", 30.0).await;
    let mut transaction = holder.begin().await.unwrap();
    complete(&mut transaction, token.token()).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, begin(other, "k", "h", 30.0)).await;
    assert_eq!(heard, Ok(Outcome::InProgress));
    transaction.rollback().await.unwrap();
    effect(holder, "k", token.token()).await.unwrap();
}

#[tokio::test]
async fn a_released_key_starts_afresh_at_once() {
    let database = database().await;
    let connection = &mut database.connect().await;
    let token = begin(connection, "k", "h", 30.0).await;
    assert!(release(connection, token.token()).await);
    assert!(!release(connection, token.token()).await, "only once");
    let again = begin(connection, "k", "another request", 30.0).await;
    assert_eq!(code(effect(connection, "k", token.token()).await), "OX001");
    effect(connection, "k", again.token()).await.unwrap();
    assert!(
        !release(connection, again.token()).await,
        "a response stays"
    );
    assert_eq!(
        begin(connection, "k", "another request", 30.0).await,
        response()
    );
}

#[tokio::test]
async fn a_response_is_stored_once() {
    let database = database().await;
    let connection = &mut database.connect().await;
    let token = begin(connection, "k", "h", 30.0).await;
    effect(connection, "k", token.token()).await.unwrap();
    assert_eq!(code(effect(connection, "k", token.token()).await), "OX001");
    assert_eq!(database.number("select count(*) from effects").await, 1);
}

#[tokio::test]
async fn an_expired_key_is_as_good_as_new() {
    let database = database().await;
    let connection = &mut database.connect().await;
    let token = begin(connection, "k", "h", 30.0).await;
    effect(connection, "k", token.token()).await.unwrap();
    database
        .execute("update idempotency_keys set expires_at = now()")
        .await;
    let outcomes = at_once(&database, 10, "k", 30.0).await;
    assert_eq!(started(&outcomes), 1, "{outcomes:?}");
    let again = begin(connection, "k", "h", 30.0).await;
    assert_eq!(again, Outcome::InProgress);
}

#[tokio::test]
async fn a_key_that_has_expired_is_held_no_longer() {
    let database = database().await;
    let connection = &mut database.connect().await;
    let late = begin(connection, "k", "h", 30.0).await;
    database
        .execute("update idempotency_keys set expires_at = now()")
        .await;
    let late = effect(connection, "k", late.token()).await;
    assert_eq!(code(late), "OX001", "nobody would hear the response again");
    let again = begin(connection, "k", "h", 30.0).await;
    effect(connection, "k", again.token()).await.unwrap();
}

#[tokio::test]
async fn a_key_that_a_policy_hides_is_an_error_and_not_waited_for() {
    let database = database().await;
    let role = unique("tenant").replace('-', "_");
    let hidden = format!(
        "create role {role}; grant usage on schema public to {role};
         grant select, insert, update, delete on idempotency_keys to {role};
         alter table idempotency_keys enable row level security;
         create policy theirs on idempotency_keys for insert to {role} with check (true);
         create policy hidden on idempotency_keys for select to {role} using (begun_in is null)"
    );
    database.execute(&hidden).await;
    let connection = &mut database.connect().await;
    begin(connection, "k", "h", 30.0).await.token();
    let become_it = sqlx::query("select set_config('role', $1, false)").bind(&role);
    become_it.execute(&mut *connection).await.unwrap();
    let refused = try_begin(connection, "k", "h", 30.0).await;
    assert!(refused.is_err());
    connection.execute("reset role").await.unwrap();
    database
        .execute(&format!("drop owned by {role}; drop role {role}"))
        .await;
}

#[tokio::test]
async fn beginning_in_the_effects_transaction_is_refused() {
    let database = database().await;
    let connection = &mut database.connect().await;
    for savepoint in ["select 1", "savepoint nested"] {
        let mut transaction = connection.begin().await.unwrap();
        transaction.execute(savepoint).await.unwrap();
        let token = begin(&mut transaction, "k", "h", 30.0).await;
        assert_eq!(
            code(complete(&mut transaction, token.token()).await),
            "55000"
        );
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn senseless_arguments_are_refused() {
    let database = database().await;
    let connection = &mut database.connect().await;
    for seconds in [0.0, -1.0, 1e6] {
        assert_eq!(
            code(try_begin(connection, "k", "h", seconds).await),
            "22023"
        );
    }
    for call in [
        "idempotency_begin(null, 'k', 'h', '1 s', '1 s')",
        "idempotency_begin('u', null, 'h', '1 s', '1 s')",
        "idempotency_begin('u', 'k', null, '1 s', '1 s')",
        "idempotency_complete(gen_random_uuid(), null, '{}', '')",
        "inbox_accept(null, 'm', '1 s')",
        "inbox_accept('c', null, '1 s')",
        "inbox_accept('c', 'm', null)",
        "inbox_accept('c', 'm', '-1 s')",
        "inbox_accept('c', 'm', '0')",
        "inbox_accept('c', '', '1 s')",
    ] {
        let sql = sqlx::AssertSqlSafe(format!("select {call}"));
        let refused = sqlx::raw_sql(sql).execute(&mut *connection).await;
        assert!(
            ["23502", "22004", "22023"].contains(&code(refused).as_str()),
            "{call}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_late_completion_and_a_take_over_at_once_one_succeeds() {
    let database = database().await;
    let (mut holder, mut heir) = (database.connect().await, database.connect().await);
    for round in 0..500 {
        let key = round.to_string();
        let token = begin(&mut holder, &key, "h", 0.001).await;
        heir.execute("select pg_sleep(0.001)").await.unwrap();
        let (completed, heard) = tokio::join!(
            complete(&mut holder, token.token()),
            begin(&mut heir, &key, "h", 30.0)
        );
        if matches!(heard, Outcome::Started(_)) {
            assert_eq!(code(completed), "OX001");
        } else {
            completed.unwrap();
        }
    }
}

/// Hammers one key from many connections whose holders work, fail, fall silent for longer than their
/// lock, or answer late. There is one effect, and everybody hears the same in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_holders_do_there_is_one_effect() {
    let database = Arc::new(database().await);
    let mut all = JoinSet::new();
    for number in 0..16_u64 {
        let database = Arc::clone(&database);
        all.spawn(async move {
            let connection = &mut database.connect().await;
            let mut random = fastrand::Rng::with_seed(number);
            for key in 0..20 {
                let key = key.to_string();
                loop {
                    match begin(connection, &key, "h", 0.02).await {
                        Outcome::Started(token) => match random.u8(..4) {
                            // And no more is heard of it.
                            0 => {}
                            1 => drop(release(connection, &token).await),
                            _ => {
                                let pause = Duration::from_millis(random.u64(..40));
                                tokio::time::sleep(pause).await;
                                let done = effect(connection, &key, &token).await;
                                assert!(done.is_ok() || code(done) == "OX001");
                            }
                        },
                        Outcome::InProgress => tokio::task::yield_now().await,
                        replay => {
                            assert_eq!(replay, response());
                            break;
                        }
                    }
                }
            }
        });
    }
    tokio::time::timeout(PATIENCE, all.join_all())
        .await
        .unwrap();
    assert_eq!(database.number("select count(*) from effects").await, 20);
    let keys = "select count(distinct of) from effects";
    assert_eq!(database.number(keys).await, 20);
}
