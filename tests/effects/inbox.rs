//! The inbox.

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::lab::{accept, code, database};

#[tokio::test]
async fn a_message_is_new_to_each_consumer_once() {
    let database = database().await;
    let connection = &mut database.connect().await;
    assert!(accept(connection, "m").await.unwrap());
    assert!(!accept(connection, "m").await.unwrap());
    assert!(accept(connection, "n").await.unwrap());
    let other = "select inbox_accept('shipping', 'm', '1 day')::int::bigint";
    assert_eq!(database.number(other).await, 1);
}

#[tokio::test]
async fn what_is_rolled_back_was_not_accepted() {
    let database = database().await;
    let connection = &mut database.connect().await;
    let mut transaction = connection.begin().await.unwrap();
    assert!(accept(&mut transaction, "m").await.unwrap());
    transaction.rollback().await.unwrap();
    assert!(accept(connection, "m").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_consumers_at_once_one_has_the_effect() {
    let database = database().await;
    let mut all = JoinSet::new();
    for number in 0..20 {
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        all.spawn(async move {
            for message in 0..50 {
                let mut transaction = connection.begin().await.unwrap();
                if accept(&mut transaction, &message.to_string())
                    .await
                    .unwrap()
                {
                    let effect = sqlx::query("insert into effects values ($1)");
                    let effect = effect.bind(message.to_string());
                    effect.execute(&mut *transaction).await.unwrap();
                }
                // Some die before they commit; others have waited for just that.
                if (number + message) % 7 == 0 {
                    transaction.rollback().await.unwrap();
                } else {
                    transaction.commit().await.unwrap();
                }
            }
        });
    }
    all.join_all().await;
    assert_eq!(database.number("select count(*) from effects").await, 50);
    let messages = "select count(distinct of) from effects";
    assert_eq!(database.number(messages).await, 50);
}

#[tokio::test]
async fn under_serializable_a_second_caller_hears_a_serialization_failure_and_not_true() {
    let database = database().await;
    let (first, second) = (&mut database.connect().await, &mut database.connect().await);
    let mut transaction = second
        .begin_with("begin isolation level serializable")
        .await
        .unwrap();
    sqlx::query("select count(*) from effects")
        .execute(&mut *transaction)
        .await
        .unwrap();
    assert!(accept(first, "m").await.unwrap());
    assert_eq!(code(accept(&mut transaction, "m").await), "40001");
}
