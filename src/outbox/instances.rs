//! One row per relay: who runs, whether it keeps dying, and what it was doing when it did.

use serde_json::{Map, Value};

use super::{Link, Outbox, error::DbError, session::statement, table::get};
use crate::event::RowId;

/// How a relay finds itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Three unclean starts within five minutes: publish one event at a time.
    pub careful: bool,
    /// The event it was trying when it died, and how often in a row.
    pub trial: Option<Trial>,
}

/// An event that was tried alone, its id committed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The outbox row's id.
    pub id: RowId,
    /// Deaths in a row while it was tried.
    pub deaths: u32,
}

/// Unclean starts within five minutes that make a relay careful.
const UNCLEAN_STARTS: i64 = 3;

impl Outbox {
    /// Writes the instance's row.
    ///
    /// # Errors
    /// Also when a live relay works on this table with the other `--ordering`.
    pub async fn register(&self, link: &mut Link, instance: &str) -> Result<Registered, DbError> {
        let instances = self.names.instances();
        link.session.begin(&self.timeouts).await?;
        // Pods have other names after a rollout: those that crashed never come back to sign off. They are
        // kept for longer, since `trial_id` tells what killed them.
        let sql = format!(
            "delete from {instances}
              where seen_at < now() - case when clean then interval '7 days' else interval '30 days' end"
        );
        link.session.execute("register", statement(sql)).await?;
        let sql = format!(
            "insert into {instances} as i (instance, version, ordering, started_at, seen_at, clean)
             values ($1, $2, $3, now(), now(), false)
             on conflict (instance) do update set version = $2, ordering = $3, started_at = now(), seen_at = now(),
                clean = false, paused = '{{}}',
                trial_deaths = case when i.clean or i.trial_id is null then 0 else i.trial_deaths + 1 end,
                trial_id = case when i.clean then null else i.trial_id end,
                unclean_starts = array(select t from unnest(i.unclean_starts) t where t > now() - interval '5 minutes')
                    || case when i.clean then '{{}}'::timestamptz[] else array[now()] end
             returning cardinality(i.unclean_starts)::bigint, i.trial_id::text, i.trial_deaths"
        );
        let query = statement(sql)
            .bind(instance)
            .bind(env!("CARGO_PKG_VERSION"))
            .bind(self.ordering.as_str());
        let row = link.session.fetch_one("register", query).await?;
        let sql = format!(
            "select instance, ordering from {instances}
              where instance <> $1 and ordering <> $2 and not clean and seen_at > now() - interval '30 seconds' limit 1"
        );
        let others = link
            .session
            .fetch(
                "register",
                statement(sql).bind(instance).bind(self.ordering.as_str()),
            )
            .await?;
        if let Some(other) = others.first() {
            link.session.rollback().await?;
            let (name, ordering): (String, String) = (get(other, 0)?, get(other, 1)?);
            return Err(DbError::table(format!(
                "relay {name} works on {} with --ordering {ordering}; `key` and `none` may not run on one table",
                self.names.display()
            )));
        }
        link.session.commit().await?;
        let unclean: i64 = get(&row, 0)?;
        let trial = get::<Option<String>>(&row, 1)?;
        let deaths: i32 = get(&row, 2)?;
        Ok(Registered {
            careful: unclean >= UNCLEAN_STARTS,
            trial: trial.map(|id| Trial {
                id: link.table.id.parse(id),
                deaths: deaths.unsigned_abs(),
            }),
        })
    }

    /// Says that the instance is alive, and which destinations it has paused.
    pub async fn heartbeat<'a>(
        &self,
        link: &mut Link,
        instance: &str,
        paused: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), DbError> {
        let paused: Map<String, Value> = paused
            .map(|(name, why)| (name.to_owned(), why.into()))
            .collect();
        let sql = format!(
            "update {} set seen_at = now(), clean = false, paused = $2::text::jsonb where instance = $1",
            self.names.instances()
        );
        let query = statement(sql)
            .bind(instance)
            .bind(Value::Object(paused).to_string());
        self.short(link, "heartbeat", query).await
    }

    /// Says that the instance was shut down in order.
    pub async fn sign_off(&self, link: &mut Link, instance: &str) -> Result<(), DbError> {
        let sql = format!(
            "update {} set seen_at = now(), clean = true, unclean_starts = '{{}}', trial_id = null, trial_deaths = 0, \
             paused = '{{}}' where instance = $1",
            self.names.instances()
        );
        self.short(link, "heartbeat", statement(sql).bind(instance))
            .await
    }

    /// Commits which event is tried next (`None`: it came through), so that a death tells whose it was.
    pub async fn note_trial(
        &self,
        link: &mut Link,
        instance: &str,
        id: Option<&RowId>,
    ) -> Result<(), DbError> {
        let sql = format!(
            "update {} set trial_deaths = case when trial_id = {id} then trial_deaths else 0 end, trial_id = {id} \
             where instance = $1",
            self.names.instances(),
            id = id.map_or("null".into(), |id| link.table.id.literal(id)),
        );
        self.short(link, "trial", statement(sql).bind(instance))
            .await
    }

    async fn short(
        &self,
        link: &mut Link,
        operation: &'static str,
        query: super::session::Statement<'_>,
    ) -> Result<(), DbError> {
        link.session.begin(&self.timeouts).await?;
        link.session.execute(operation, query).await?;
        link.session.commit().await
    }
}
