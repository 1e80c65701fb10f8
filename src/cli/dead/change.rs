//! `outboxd dead retry` and `outboxd dead discard`.

use indicatif::ProgressBar;
use serde_json::json;

use super::ChoiceArgs;
use crate::{
    cli::{Failed, exit, output},
    outbox::{Change, Changed, DbError, Filter, Link, Outbox},
};

/// Events changed under one lock, at most: nothing of their lane is published meanwhile.
const BATCH: usize = 500;

pub(super) async fn change(choice: &ChoiceArgs, change: Change) -> Result<(), Failed> {
    if !choice.chooses() {
        return Err(Failed::new(
            exit::USAGE,
            "name the events by EVENT_ID or by a filter (--topic, --key, --reason, --before), or say --all",
        ));
    }
    let (config, filter) = choice.validate()?;
    let outbox = config.outbox_for_command("dead");
    let mut link = outbox.link().await?;
    let unknown = unknown(&outbox, &mut link, &filter).await?;
    let limit = choice.limit.map(i64::from);
    let lanes = outbox.failed_lanes(&mut link, &filter, limit).await?;
    let bar = ProgressBar::new(lanes.iter().map(|(_, ids)| ids.len() as u64).sum());
    let mut done = Changed::default();
    for (lane, ids) in &lanes {
        for ids in ids.chunks(BATCH) {
            let step = outbox
                .change_failed(&mut link, change, &filter.states, *lane, ids)
                .await;
            match step {
                Ok(step) => add(&mut done, step),
                Err(error) => {
                    bar.finish_and_clear();
                    return Err(broken_off(&outbox, *lane, error, done).await);
                }
            }
            bar.inc(ids.len() as u64);
        }
    }
    bar.finish_and_clear();
    link.session.close().await;
    report(choice, change, done, &unknown)
}

fn add(done: &mut Changed, step: Changed) {
    done.changed += step.changed;
    done.overtaken += step.overtaken;
    done.gone += step.gone;
}

/// The named events that cannot be changed, and why.
async fn unknown(
    outbox: &Outbox,
    link: &mut Link,
    filter: &Filter,
) -> Result<Vec<(String, String)>, DbError> {
    let found = outbox.failed_states(link, &filter.event_ids).await?;
    let wanted = |state: &str| filter.states.iter().any(|wanted| wanted.as_str() == state);
    let unknown = filter.event_ids.iter().filter_map(|id| {
        let states: Vec<_> = found.iter().filter(|(found, _)| found == id).collect();
        let why = match states.first() {
            None => "no failed event has this id".to_owned(),
            Some((_, state)) if !wanted(state) => {
                format!("it is {state}: say --state {state} if you mean it")
            }
            Some(_) => return None,
        };
        Some((id.clone(), why))
    });
    Ok(unknown.collect())
}

/// Why a change stopped half-way: what was done stays done.
async fn broken_off(outbox: &Outbox, lane: i64, error: DbError, done: Changed) -> Failed {
    let so_far = format!(
        "{} changed before that; run it again for the rest",
        events(done.changed)
    );
    if !error.is_lock_timeout() {
        let failed = Failed::from(error);
        return Failed::new(failed.code, format!("{failed}\n{so_far}"));
    }
    let holder = match outbox.link().await {
        Ok(mut link) => outbox.lane_holder(&mut link, lane).await.ok().flatten(),
        Err(_) => None,
    };
    let holder = holder.unwrap_or_else(|| "another session".into());
    Failed::new(
        exit::UNAVAILABLE,
        format!(
            "lane {lane} is held by {holder}, which is publishing its events: try again, or wait longer with --lock-timeout\n{so_far}"
        ),
    )
}

fn report(
    choice: &ChoiceArgs,
    change: Change,
    done: Changed,
    unknown: &[(String, String)],
) -> Result<(), Failed> {
    let verb = match change {
        Change::Retry => "retried",
        Change::Discard => "discarded",
    };
    if choice.json {
        let unknown: Vec<_> = unknown.iter().map(|(id, _)| id).collect();
        let mut answer = json!({ verb: done.changed, "gone": done.gone, "unknown": unknown });
        if change == Change::Retry {
            answer["overtaken"] = done.overtaken.into();
        }
        output::json(&answer)?;
    }
    let follows = match change {
        Change::Retry => "published again at once",
        Change::Discard => "never published",
    };
    eprintln!("outboxd: {verb} {}: to be {follows}", events(done.changed));
    if change == Change::Retry && done.overtaken > 0 {
        eprintln!(
            "outboxd: {} may arrive out of order: the key did not wait, so later events of it may be published already",
            events(done.overtaken)
        );
    }
    if done.gone > 0 {
        eprintln!(
            "outboxd: dropped {}: published or deleted by somebody else meanwhile",
            events(done.gone)
        );
    }
    for (id, why) in unknown {
        eprintln!("outboxd: {}: {why}", output::printable(id));
    }
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Failed::new(
        exit::FAILURE,
        format!("{} of the events named were not changed", unknown.len()),
    ))
}

fn events(count: u64) -> String {
    match count {
        1 => "1 event".into(),
        count => format!("{count} events"),
    }
}
