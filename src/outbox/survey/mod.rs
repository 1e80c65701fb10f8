//! Looking for tables that may be an outbox, for `outboxd inspect`: proposals, doubts, and what to do next.
//!
//! # Design notes
//! * Catalogs first: any role may read them, and they tell names, types, keys, triggers and sizes. Of rows
//!   only so much is read as an answer takes: a few values of a status, ten messages, and counts of
//!   tables that are small. Of large ones the planner is asked how many it expects.
//! * Each question is a transaction of its own that can change nothing, and has little time. One that is
//!   refused, or takes too long, leaves a doubt, and the next is asked.

mod catalog;
mod data;
mod doubts;
mod found;
mod next;

use std::time::Duration;

use super::{
    Database, DbError, Names, Ordering, Outbox, Session, Table, Timeouts, catalog::Found,
    fit::Misfit, inspect::Finding, needs, table::order_column,
};
use crate::mapping::propose;
use catalog::Listed;
pub use found::{Backlog, Survey, Surveyed, TOPIC};

/// The role that GRANTs are written for.
const ROLE: &str = "outboxd";
/// No question may take longer, whatever `--statement-timeout` says.
const PATIENCE: Duration = Duration::from_secs(5);
/// Tables of up to so many pages are counted; above, an index is built outside of `migrate`, too.
const SMALL: i64 = 10_000;

/// What is wanted of a survey.
pub struct Wanted {
    /// This table only, whatever it looks like.
    pub table: Option<Names>,
    /// So many messages of each.
    pub samples: u32,
}

/// Asks the database.
struct Surveyor<'a> {
    database: &'a Database,
    timeouts: Timeouts,
    session: Session,
}

/// Looks at a database.
///
/// # Errors
/// When it cannot be reached, or its catalogs not be read.
pub async fn survey(
    database: &Database,
    timeouts: Timeouts,
    wanted: &Wanted,
) -> Result<Survey, DbError> {
    let mut surveyor = Surveyor {
        database,
        timeouts: Timeouts {
            statement: timeouts.statement.min(PATIENCE),
            lock: timeouts.lock.min(PATIENCE / 5),
            ..timeouts
        },
        session: database.connect().await?,
    };
    let survey = surveyor.look(wanted).await;
    surveyor.session.close().await;
    survey
}

impl Surveyor<'_> {
    async fn look(&mut self, wanted: &Wanted) -> Result<Survey, DbError> {
        let table = wanted.table.clone();
        let listed = self.ask(async |session| catalog::list(session, table.as_ref()).await);
        let listed = listed.await??;
        let in_all = self.ask(async |session| catalog::count(session).await);
        let mut survey = Survey {
            in_all: in_all.await??,
            ..Survey::default()
        };
        for mut listed in listed {
            let insisting = wanted.table.is_some();
            match self.consider(&mut listed, insisting).await? {
                None if insisting => survey.passed_over.push((
                    listed.display(),
                    "none of its columns can be both id and body of an event".into(),
                )),
                None => {}
                Some(Err(why)) => survey.passed_over.push((listed.display(), why)),
                Some(Ok(mut surveyed)) => {
                    self.examine(&mut listed, &mut surveyed, wanted.samples)
                        .await?;
                    survey.tables.push(surveyed);
                }
            }
        }
        survey.tables.sort_by(|a, b| {
            let certainty = b.proposal.certainty.cmp(&a.proposal.certainty);
            certainty.then_with(|| a.names.display().cmp(&b.names.display()))
        });
        Ok(survey)
    }

    /// Asks one thing. What the server says no to is an answer, too; everything else an error.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&mut Session) -> Result<T, DbError>,
    ) -> Result<Result<T, DbError>, DbError> {
        self.session.begin_reading(&self.timeouts).await?;
        match question(&mut self.session).await {
            Ok(answer) => {
                self.session.commit().await?;
                Ok(Ok(answer))
            }
            Err(error) if error.is_answer() => {
                self.session.rollback().await?;
                Ok(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    /// What a table may be; `None`: no outbox. An outbox that cannot be worked with says why.
    async fn consider(
        &mut self,
        listed: &mut Listed,
        insisting: bool,
    ) -> Result<Option<Result<Surveyed, String>>, DbError> {
        if propose::propose(&listed.sight, insisting).is_empty() {
            return Ok(None);
        }
        let names = match Names::parse(&listed.display()) {
            Ok(names) if names.schema() == listed.sight.schema => names,
            Ok(_) => {
                return Ok(Some(Err(
                    "its name, or its schema's, has a dot in it".into()
                )));
            }
            Err(error) => {
                return Ok(Some(Err(format!(
                    "its name cannot be worked with: {error}"
                ))));
            }
        };
        if listed.is_readable {
            self.learn_values(listed, &names).await?;
        }
        let proposals = propose::propose(&listed.sight, insisting);
        let mut best: Option<(Surveyed, usize)> = None;
        for proposal in proposals {
            let surveyed = match Surveyed::new(&names, proposal) {
                Ok(surveyed) => surveyed,
                Err(why) => return Ok(Some(Err(why))),
            };
            let (surveyed, misfits) = self.fit(listed, surveyed).await?;
            if best.as_ref().is_none_or(|(_, fewest)| misfits < *fewest) {
                best = Some((surveyed, misfits));
            }
        }
        Ok(best.map(|(surveyed, _)| Ok(surveyed)))
    }

    /// Fills in what a status was seen to be.
    async fn learn_values(&mut self, listed: &mut Listed, names: &Names) -> Result<(), DbError> {
        let Some(column) = propose::open_question(&listed.sight).map(str::to_owned) else {
            return Ok(());
        };
        let values = self.ask(async |session| data::values(session, names, &column).await);
        let values = values.await?.unwrap_or_default();
        let columns = listed.sight.columns.iter_mut();
        for status in columns.filter(|it| it.name == column) {
            status.seen.clone_from(&values);
        }
        Ok(())
    }

    fn outbox(&self, surveyed: &Surveyed) -> Outbox {
        Outbox::new(
            self.database.clone(),
            surveyed.names.clone(),
            surveyed.mapping.clone(),
            Ordering::Key,
            self.timeouts,
        )
    }

    /// Adds what does not fit the table as it is; also how much that is.
    async fn fit(
        &mut self,
        listed: &Listed,
        mut surveyed: Surveyed,
    ) -> Result<(Surveyed, usize), DbError> {
        if !listed.is_readable {
            return Ok((surveyed, 0));
        }
        let outbox = self.outbox(&surveyed);
        let misfits = self.ask(async |session| {
            let table = Table::describe(session, &outbox.names, &outbox.mapping).await?;
            outbox.misfits_for_reader(session, &table).await
        });
        let misfits = match misfits.await? {
            Ok(misfits) => misfits,
            Err(error) => {
                surveyed.refused("mapping", &error);
                return Ok((surveyed, 1));
            }
        };
        for Misfit { what, remedy } in &misfits {
            surveyed.doubt("mapping", what, remedy);
        }
        Ok((surveyed, misfits.len()))
    }

    /// Everything else about a table that was chosen.
    async fn examine(
        &mut self,
        listed: &mut Listed,
        surveyed: &mut Surveyed,
        samples: u32,
    ) -> Result<(), DbError> {
        self.heed_catalog(listed, surveyed).await?;
        let outbox = self.outbox(surveyed);
        surveyed.grants = needs::grants(&surveyed.names, &surveyed.mapping, &[ROLE.into()], false);
        if !listed.is_readable {
            return Ok(());
        }
        let found = self.ask(async |session| {
            let table = Table::describe(session, &outbox.names, &outbox.mapping).await?;
            let by_index = outbox.reads_by_index(session, &table).await?;
            Ok((table, by_index))
        });
        let (table, by_index) = match found.await? {
            Ok(found) => found,
            Err(error) => {
                surveyed.refused("pending index", &error);
                return Ok(());
            }
        };
        surveyed.heed_order(&table);
        surveyed.plan(listed, &table, by_index);
        self.look_at_rows(listed, surveyed, &table, by_index, samples)
            .await
    }
}
