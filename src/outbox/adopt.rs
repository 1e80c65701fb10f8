//! What is made beside a table that somebody else made: the relay's own tables, as always, and an index. The
//! table itself stays as it is.

use super::{
    Applied, DbError, Extra, Outbox, Session,
    migrate::{chosen, fill},
    needs,
    session::statement,
    table::{Table, get},
    verify::refuse,
};
use crate::template::quote_literal;

impl Outbox {
    /// Makes the pending index of a table that somebody else made.
    pub(super) async fn index_pending(&self, session: &mut Session) -> Result<Applied, DbError> {
        let table = Table::describe(session, &self.names, &self.mapping).await?;
        refuse(&self.misfits(session, &table).await?)?;
        if self.reads_by_index(session, &table).await? {
            return Ok(Applied::Before);
        }
        self.refuse_another_index(session).await?;
        self.refuse_long_build(session).await?;
        let index = format!("create index {}", table.pending_index_parts(&self.mapping));
        let made = session.execute("migrate", statement(index)).await;
        match made {
            // Not immutable.
            Err(error) if error.code().as_deref() == Some("42P17") => Err(DbError::table(format!(
                "{}the text of one of its columns may change (that of an enum, or of a time, does): no index can be \
                     made of it. Let `key` be of text, numbers or uuids: add a text column, or a generated one",
                self.mapping.place("key")
            ))),
            made => made.map(|_| Applied::Now),
        }
    }

    /// Of the name that ours would have.
    async fn refuse_another_index(&self, session: &mut Session) -> Result<(), DbError> {
        let name = format!(
            "{}.{}",
            self.names.quoted_schema(),
            self.names.beside("_pending")
        );
        let sql = format!("select to_regclass({}) is not null", quote_literal(&name));
        let row = session.fetch_one("migrate", statement(sql)).await?;
        if !get::<bool>(&row, 0)? {
            return Ok(());
        }
        Err(DbError::table(format!(
            "there is {name} already, by which claims would not find their rows in order (of another mapping?): \
             drop it, then migrate again: drop index concurrently {name}"
        )))
    }

    /// The SQL that makes the relay's own tables beside a table that somebody else made, the pending index,
    /// and grants, for other tools to apply.
    pub async fn script(&self, extras: &[Extra], grantees: &[String]) -> Result<String, DbError> {
        let mut session = self.database.connect().await?;
        session.begin_reading(&self.timeouts).await?;
        let table = Table::describe(&mut session, &self.names, &self.mapping).await?;
        refuse(&self.misfits(&mut session, &table).await?)?;
        session.commit().await?;
        session.close().await;
        let index =
            "-- Pending rows by lane, in order. Not within a transaction: it lets writers in.\n";
        let mut parts = vec![format!("{index}{};\n", table.pending_index(&self.mapping))];
        let others = chosen(extras)
            .into_iter()
            .filter(|migration| migration.version > 2);
        parts.extend(others.map(|it| fill(&self.names, it.sql, table.id.sql_type())));
        if !grantees.is_empty() {
            let effects = extras.contains(&Extra::Effects);
            parts.push(needs::script(&self.names, &self.mapping, grantees, effects));
        }
        Ok(parts.join("\n"))
    }
}
