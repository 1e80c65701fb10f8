//! The rows of relays that are no more.

use crate::{common::database::Database, lab::outbox};

#[tokio::test]
async fn rows_of_relays_long_gone_are_deleted_whether_they_ended_in_order_or_not() {
    let database = Database::new().await;
    for (name, days, clean) in [
        ("ended", 8, true),
        ("ended-lately", 6, true),
        ("crashed", 31, false),
        ("crashed-lately", 29, false),
    ] {
        database
            .execute(&format!(
                "insert into outbox_instances (instance, version, ordering, started_at, seen_at, clean)
                 values ('{name}', '1', 'key', now(), now() - interval '{days} days', {clean})"
            ))
            .await;
    }
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    outbox.register(&mut link, "new").await.unwrap();
    let left = "select string_agg(instance, ' ' order by instance) from outbox_instances";
    assert_eq!(database.text(left).await, "crashed-lately ended-lately new");
}
