//! `outboxd dead list`.

use serde_json::json;

use super::ChoiceArgs;
use crate::{
    cli::{Failed, output, output::printable},
    outbox::{FailedEvent, Filter, Link, Outbox},
};

/// Events listed unless told otherwise.
const LISTED: usize = 1000;
/// Events read at once.
const PAGE: usize = 1000;

pub(super) async fn list(choice: &ChoiceArgs) -> Result<(), Failed> {
    let (config, filter) = choice.validate()?;
    let outbox = config.outbox_for_command("dead");
    let mut link = outbox.link().await?;
    let limit = match (choice.limit, choice.all) {
        (Some(limit), _) => limit as usize,
        (None, true) => usize::MAX,
        (None, false) => LISTED,
    };
    // One more than wanted, to know whether there are more.
    let mut events = read(&outbox, &mut link, &filter, limit.saturating_add(1)).await?;
    link.session.close().await;
    let more = events.len() > limit;
    events.truncate(limit);
    if choice.json {
        let array: Vec<_> = events.iter().map(to_json).collect();
        output::json(&array.into())?;
    } else if events.is_empty() {
        eprintln!("outboxd: no such events");
    } else {
        output::text(&table(&events))?;
    }
    if more && choice.limit.is_none() {
        eprintln!("outboxd: these are the oldest {limit}; --all lists every one");
    }
    let found = |id: &String| events.iter().any(|event| event.event_id == *id);
    for id in choice.event_ids.iter().filter(|id| !found(id)) {
        eprintln!(
            "outboxd: {}: no failed event in this state has this id",
            printable(id)
        );
    }
    Ok(())
}

async fn read(
    outbox: &Outbox,
    link: &mut Link,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<FailedEvent>, Failed> {
    let mut events: Vec<FailedEvent> = Vec::new();
    loop {
        let page = PAGE.min(limit - events.len());
        let after = events.last().map(|event: &FailedEvent| event.id.clone());
        let read = outbox
            .failed_events(
                link,
                filter,
                after.as_ref(),
                i64::try_from(page).unwrap_or(i64::MAX),
            )
            .await?;
        let last = read.len() < page;
        events.extend(read);
        if last || events.len() == limit {
            return Ok(events);
        }
    }
}

fn to_json(event: &FailedEvent) -> serde_json::Value {
    json!({
        "event_id": event.event_id,
        "id": serde_json::Value::from(&event.id),
        "destination": event.destination,
        "key": event.key,
        "state": event.state,
        "holds": event.holds,
        "attempts": event.attempts,
        "reason": event.reason,
        "failed_at": event.failed_at,
        "next_attempt_at": event.next_attempt_at,
    })
}

fn table(events: &[FailedEvent]) -> String {
    let mut table = output::table([
        "EVENT ID",
        "ID",
        "DESTINATION",
        "KEY",
        "STATE",
        "ATTEMPTS",
        "FAILED AT",
        "REASON",
    ]);
    for event in events {
        let state = if event.holds {
            format!("{}, holds its key", event.state)
        } else {
            event.state.clone()
        };
        table.add_row([
            printable(&event.event_id),
            event.id.to_string(),
            printable(&event.destination),
            printable(event.key.as_deref().unwrap_or("(none)")),
            state,
            event.attempts.to_string(),
            event.failed_at.clone(),
            printable(&event.reason),
        ]);
    }
    table.to_string()
}
