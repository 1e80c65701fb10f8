//! One suite for every consumer: the example's payments from Kafka and from RabbitMQ, and one in Python.

use std::process::Command;

use sqlx::{Executor as _, PgConnection};

use crate::{
    common::{
        PrivateServices, blocking,
        broker::{Broker, Kind},
        database::Database,
        relay::{outboxd, until},
    },
    lab::{Program, database, in_mid_effect},
};

/// A database, a broker and a topic, and what consumers of it are told.
struct Shop {
    database: Database,
    broker: Broker,
    topic: String,
    in_python: bool,
}

/// The example's payments from Kafka, from RabbitMQ; and a consumer in Python.
const KAFKA: (Kind, bool) = (Kind::Kafka, false);
const RABBITMQ: (Kind, bool) = (Kind::Rabbitmq, false);
const PYTHON: (Kind, bool) = (Kind::Rabbitmq, true);

/// As the example's consumer makes it: no unique constraint, so that a second effect would show.
const PAYMENTS: &str = "create table payments (id bigint generated always as identity primary key,
    order_id bigint not null, cents bigint not null)";

/// Keeps everybody from inserting payments; reads go on.
const LOCK: &str = "begin; lock table payments in exclusive mode";

impl Shop {
    async fn new((kind, in_python): (Kind, bool)) -> Self {
        let database = database().await;
        database.execute(PAYMENTS).await;
        let broker = Broker::shared(kind);
        let topic = broker.destination().await;
        Self {
            database,
            broker,
            topic,
            in_python,
        }
    }

    fn consumer(&self, flags: &[&str]) -> Program {
        let (url, topic) = (&self.database.url, &self.topic);
        if self.in_python {
            return Program::python("consumer.py", &[url, &self.broker.address, topic]);
        }
        // Kafka shares the consumer's name among all databases: it is the group.
        let shop = [
            "payments",
            "--database-url",
            url,
            "--topic",
            topic,
            "--consumer",
            topic,
        ];
        Program::example(&[&shop, &self.broker.flags()[..], flags].concat())
    }

    /// An order's event, not yet published.
    async fn order(&self, order: i64) {
        let topic = &self.topic;
        let event = format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload)
             values ('{topic}', 'order-{order}', 'OrderPlaced', jsonb_build_object('order', {order}, 'user', 'ann', 'cents', 5))"
        );
        self.database.execute(&event).await;
    }

    /// Publishes what is pending: everything, if it was made so again.
    fn publish(&self) {
        let arguments = [
            &["drain", "--database-url", &self.database.url],
            &self.broker.flags()[..],
        ];
        let (code, _, stderr) = blocking(|| outboxd(&arguments.concat()));
        assert_eq!(code, 0, "{stderr}");
    }

    async fn payments(&self) -> i64 {
        self.database.number("select count(*) from payments").await
    }

    async fn paid(&self, count: i64) {
        until(&format!("{count} payments"), || async {
            self.payments().await >= count
        })
        .await;
        assert_eq!(self.payments().await, count);
    }

    /// Somebody holds the payments; until it is rolled back.
    async fn hold(&self) -> PgConnection {
        let mut holder = self.database.connect().await;
        holder.execute(LOCK).await.unwrap();
        holder
    }
}

async fn a_message_that_is_sent_again_has_one_effect(program: (Kind, bool)) {
    let shop = Shop::new(program).await;
    let _consumer = shop.consumer(&[]);
    for order in 1..=20 {
        shop.order(order).await;
    }
    for _ in 0..4 {
        shop.publish();
        let again = "update outbox set published_at = null";
        shop.database.execute(again).await;
    }
    // The last one comes behind all copies of the others: of its partition, if it is Kafka's.
    for order in 21..=60 {
        shop.order(order).await;
    }
    shop.publish();
    shop.paid(60).await;
    let twice = "select count(*) - count(distinct order_id) from payments";
    assert_eq!(shop.database.number(twice).await, 0);
}

async fn one_killed_in_mid_effect_leaves_it_to_the_next(program: (Kind, bool)) {
    let shop = Shop::new(program).await;
    shop.order(1).await;
    shop.publish();
    let mut holder = shop.hold().await;
    let mut killed = shop.consumer(&[]);
    in_mid_effect(&shop.database).await;
    killed.kill();
    holder.execute("rollback").await.unwrap();
    let _next = shop.consumer(&[]);
    shop.paid(1).await;
    shop.order(2).await;
    shop.publish();
    shop.paid(2).await;
}

async fn an_effect_that_fails_is_tried_again(program: (Kind, bool)) {
    let shop = Shop::new(program).await;
    let rename =
        "alter table payments rename to away; alter sequence payments_id_seq rename to tries";
    shop.database.execute(rename).await;
    // Each try draws a number, and comes to nothing.
    let failing = "create view payments as select order_id, cents from away where false;
        create function fail() returns trigger language plpgsql as $$
            begin perform nextval('tries'); raise 'no'; end $$;
        create trigger fail instead of insert on payments for each row execute function fail()";
    shop.database.execute(failing).await;
    shop.order(1).await;
    shop.publish();
    let _consumer = shop.consumer(&[]);
    until("it was tried more than once", || async {
        shop.database.number("select last_value from tries").await > 1
    })
    .await;
    let mend = "drop view payments; alter table away rename to payments";
    shop.database.execute(mend).await;
    shop.paid(1).await;
}

suite! {
    [
        a_message_that_is_sent_again_has_one_effect
        one_killed_in_mid_effect_leaves_it_to_the_next
        an_effect_that_fails_is_tried_again
    ]
    kafka: KAFKA,
    rabbitmq: RABBITMQ,
    python: PYTHON,
}

/// The commit is there and the mark is not: see the example's module on marks in Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_marks_in_redis_a_crash_at_a_bad_moment_repeats_the_effect() {
    let services = PrivateServices::up(&["redis"]);
    let redis = services.env("TEST_REDIS_URL");
    let shop = Shop::new(RABBITMQ).await;
    let flags = [
        "--dedupe",
        "redis",
        "--redis-url",
        &redis,
        "--lock-for",
        "1s",
    ];
    shop.order(1).await;
    shop.publish();
    let mut holder = shop.hold().await;
    let mut killed = shop.consumer(&flags);
    in_mid_effect(&shop.database).await;
    redis_cli(&redis, &["client", "pause", "3600000", "write"]);
    holder.execute("rollback").await.unwrap();
    shop.paid(1).await;
    killed.kill();
    redis_cli(&redis, &["client", "unpause"]);
    let _next = shop.consumer(&flags);
    shop.paid(2).await;
    // A message that had its mark is told, as long as Redis remembers.
    let again = "update outbox set published_at = null";
    shop.database.execute(again).await;
    shop.order(2).await;
    shop.publish();
    shop.paid(3).await;
    redis_cli(&redis, &["flushall"]);
    shop.database.execute(again).await;
    shop.publish();
    shop.paid(5).await;
}

fn redis_cli(url: &str, command: &[&str]) {
    let mut redis = Command::new("redis-cli");
    let output = redis.args(["-u", url]).args(command).output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        answer.trim(),
        "OK",
        "{command:?}: {output:?}",
        output = output.status
    );
}
