//! Small storms of one fault each. Here the shipped binary keeps its promise in them; with a
//! deliberate defect it breaks one, and the checker says which (`defects`).

use std::time::Duration;

use crate::{
    common::{
        broker::Kind::{self, Kafka, Rabbitmq},
        proxy::Fault,
        rabbitmq,
    },
    faults::Strike,
    plan::Plan,
    writers::Poison,
};

macro_rules! kept {
    ($($name:ident => $plan:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            patient($plan).run().await.assert_as_promised();
        })+
    };
}

kept! {
    nothing_that_can_be_sent_is_charged_beside_what_cannot => unsendable();
    a_cut_line_to_the_broker_charges_nobody => outage();
    what_cannot_be_routed_for_a_while_is_not_lost => unroutable();
    what_is_committed_late_is_delivered => late_commits();
    rows_that_strangers_hold_are_not_overtaken => strangers();
    a_message_too_large_for_its_topic_is_charged_alone => too_large();
    a_message_that_closes_the_channel_is_charged_alone => closes_channel();
    a_lost_host_holds_nothing_for_ever => lost_host();
    what_cannot_be_marked_is_not_published_again => unmarkable();
    restarts_repeat_nothing_and_pruning_keeps_what_is_dead => restarts();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_refuses_keeps_the_order_and_is_asked_again() {
    let aftermath = patient(refusing()).run().await;
    aftermath.assert_as_promised();
    assert!(!aftermath.history.charges.is_empty(), "nothing was refused");
}

/// Without a defect nothing stands still but for a busy machine.
fn patient(plan: Plan) -> Plan {
    Plan {
        standstill: Duration::from_mins(1),
        ..plan
    }
}

fn small(kind: Kind, events: u64) -> Plan {
    Plan {
        keys: 40,
        replicas: 2,
        workers: 2,
        batch: 100,
        standstill: Duration::from_secs(4),
        ..Plan::calm(kind, 1, events)
    }
}

/// Events that cannot be sent among others.
pub fn unsendable() -> Plan {
    Plan {
        poison_every: 8,
        ..small(Kafka, 2000)
    }
}

/// A queue with little room, from which a consumer reads.
pub fn refusing() -> Plan {
    Plan {
        room: Some(5),
        // Full batches, which there is no room for however slow the machine is.
        backlog: true,
        settings: &[
            "--max-attempts",
            "1000",
            "--backoff-initial",
            "50ms",
            "--backoff-max",
            "200ms",
        ],
        standstill: Duration::from_secs(20),
        ..small(Rabbitmq, 1000)
    }
}

pub fn outage() -> Plan {
    Plan {
        broker_proxied: true,
        strikes: vec![Strike::BrokerNetwork(Fault::Cut); 2],
        ..small(Rabbitmq, 2000)
    }
}

pub fn unroutable() -> Plan {
    Plan {
        strikes: vec![Strike::Unbind; 2],
        settings: &["--rabbitmq-exchange", rabbitmq::EXCHANGE],
        ..small(Rabbitmq, 2000)
    }
}

/// Some writers commit late, after others that drew their ids later.
pub fn late_commits() -> Plan {
    small(Kafka, 4000)
}

/// And the relays look at the table anew, so that what they passed by is found.
pub fn strangers() -> Plan {
    Plan {
        strikes: [Strike::LockRows, Strike::Terminate].repeat(2),
        ..small(Kafka, 4000)
    }
}

pub fn too_large() -> Plan {
    Plan {
        poison_every: 200,
        poison: Poison::TooLarge(300_000),
        // Requests of a batch that follow each other.
        settings: &["--kafka-option", "batch.num.messages=20"],
        batch: 500,
        backlog: true,
        ..small(Kafka, 4000)
    }
}

pub fn closes_channel() -> Plan {
    Plan {
        poison_every: 200,
        poison: Poison::ClosesChannel,
        ..small(Rabbitmq, 2000)
    }
}

pub fn lost_host() -> Plan {
    Plan {
        strikes: vec![Strike::Lose],
        settings: &["--publish-timeout", "1s"],
        // A claim may stand open for the publish timeout and 10 s.
        standstill: Duration::from_secs(15),
        replicas: 1,
        ..small(Rabbitmq, 6000)
    }
}

/// One claim at a time: whoever claims what another owes publishes it once more.
pub fn unmarkable() -> Plan {
    Plan {
        replicas: 1,
        workers: 1,
        strikes: vec![Strike::RefuseMarks],
        ..small(Kafka, 4000)
    }
}

/// One relay: another could take all lanes while the way to the broker is blocked, and time out.
pub fn restarts() -> Plan {
    Plan {
        replicas: 1,
        poison_every: 50,
        delete: true,
        broker_proxied: true,
        strikes: vec![Strike::StopPublishing; 3],
        settings: &["--retention", "1s"],
        ..small(Rabbitmq, 6000)
    }
}
