//! `outboxd migrate`: make the tables, or print the SQL that does.

use clap::Args;

use super::{Failed, exit, output, settings};
use crate::outbox::{Applied, Extra, Names, config::DatabaseArgs, script};

/// Create the outbox table and the relay's own tables beside it
///
/// With --preset or --mapping, only the latter and an index of pending rows: the table is yours.
///
/// May be run again, and by several at once: what is there already is left alone or, if somebody else
/// made it, adopted. Give it a role that may create tables; the relay itself needs less (see `outboxd
/// check`).
#[derive(Args)]
#[command(after_help = "Examples:
  outboxd migrate --database-url postgres://owner@localhost/shop
  outboxd migrate --table sales.outbox --with notify
  outboxd migrate --grant-to outboxd       (the role that relays run as)
  outboxd migrate --with effects           (idempotency keys and inbox: see the README)
  outboxd migrate --print > db/migrations/V42__outbox.sql      (no database needed)")]
pub struct MigrateArgs {
    /// Print the SQL for Flyway, Alembic, Prisma and the like, and change nothing
    ///
    /// Only --table, --with and --grant-to matter then; no database is needed but with a mapping, whose
    /// table is looked at.
    #[arg(long)]
    print: bool,

    /// Add what is optional
    #[arg(
        long,
        env = "OUTBOXD_WITH",
        value_name = "EXTRA",
        value_enum,
        value_delimiter = ','
    )]
    with: Vec<Extra>,

    /// Grant these roles what a relay needs, and no more
    ///
    /// For relays that do not run as the tables' owner. The roles must be there. It is the list that
    /// `outboxd check` goes by: enough for any settings of `run`, with the tables of `--with effects`
    /// where they are there.
    #[arg(
        long,
        env = "OUTBOXD_GRANT_TO",
        value_name = "ROLE",
        value_delimiter = ','
    )]
    grant_to: Vec<String>,

    #[command(flatten)]
    database: DatabaseArgs,
}

impl MigrateArgs {
    /// Runs the command.
    pub async fn run(self) -> Result<(), Failed> {
        let server = &self.database.server;
        if self.print && server.preset.is_none() && server.mapping.is_none() {
            let table = server.table.as_deref().unwrap_or("outbox");
            let names = Names::parse(table).map_err(|error| {
                Failed::new(exit::CONFIG, format!("--table {table:?}: {error}"))
            })?;
            return output::text(&script(&names, &self.with, &self.grant_to));
        }
        let config = settings(|problems| self.database.validate(problems))?;
        let outbox = config.outbox_for_command("migrate");
        if self.print {
            return output::text(&outbox.script(&self.with, &self.grant_to).await?);
        }
        let table = config.names.display();
        for (name, applied) in outbox.migrate(&self.with, &self.grant_to).await? {
            let what = match name {
                "outbox" => format!("table {table}"),
                "pending" => format!("index of pending rows on {table}"),
                "relay" => {
                    format!("the relay's own tables, {table}_failures and {table}_instances")
                }
                "effects" => format!("idempotency keys and inbox beside {table}"),
                _ => format!("{name} on {table}"),
            };
            let became = match applied {
                Applied::Now => "created",
                Applied::Before => "there already",
                Applied::Adopted => "found, and adopted",
            };
            eprintln!("outboxd: {what}: {became}");
        }
        if !self.grant_to.is_empty() {
            let roles = self.grant_to.join(", ");
            eprintln!("outboxd: what a relay needs of them: granted to {roles}");
        }
        Ok(())
    }
}
