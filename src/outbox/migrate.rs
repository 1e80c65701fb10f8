//! Making the tables: the SQL of `migrations/`, filled with this table's names.
//!
//! # Design notes
//! * A bookkeeping table of its own name, and a transaction-scoped lock: sqlx's migrator would strand
//!   a session lock behind PgBouncer and share its table with the application's own migrations.
//! * Every script creates only what is not there. So the output of `--print` may be applied twice, and
//!   tables that somebody else made (Flyway, an outbox of long ago) are adopted: what matters of them
//!   is looked at afterwards, and the whole is rolled back if it will not do.

use super::{
    DbError, Names, Outbox, Session,
    effects::EffectsTable,
    needs,
    session::statement,
    table::{Table, get},
    verify::{LaneIndex, missing_columns},
};
use crate::{
    mapping::Mapping,
    template::{Template, quote_literal},
};

/// Above this many 8 KiB pages, building an index would keep writers out for too long.
const LARGE_TABLE_PAGES: i64 = 10_000;

/// One step in the making of the tables. Applied ones never change: a later version adds another.
pub(super) struct Migration {
    /// Those of `--with` count from 1000.
    pub(super) version: i32,
    name: &'static str,
    pub(super) sql: &'static str,
}

impl Migration {
    /// What its checksum is of.
    fn text(&self) -> String {
        self.sql.replace("{id_type}", OWN_ID_TYPE)
    }
}

const MIGRATIONS: [Migration; 3] = [
    Migration {
        version: 1,
        name: "outbox",
        sql: include_str!("../../migrations/0001_outbox.sql"),
    },
    Migration {
        version: 2,
        name: PENDING_INDEX,
        sql: include_str!("../../migrations/0002_pending.sql"),
    },
    Migration {
        version: 3,
        name: "relay",
        sql: include_str!("../../migrations/0003_relay.sql"),
    },
];

/// Of ids in outboxd's own table. Checksums are of the text with it.
const OWN_ID_TYPE: &str = "bigint";
const PENDING_INDEX: &str = "pending";
const EFFECTS: &str = "effects";

/// What `--with` adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Extra {
    /// A trigger that wakes idle relays by NOTIFY
    Notify,
    /// Idempotency keys for HTTP requests and an inbox for consumers, with the functions that use them
    Effects,
}

impl Extra {
    fn migration(self) -> Migration {
        match self {
            Self::Notify => Migration {
                version: 1000,
                name: "notify",
                sql: include_str!("../../migrations/notify.sql"),
            },
            Self::Effects => Migration {
                version: 1001,
                name: EFFECTS,
                sql: include_str!("../../migrations/effects.sql"),
            },
        }
    }
}

/// What became of one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was applied now.
    Now,
    /// It had been applied before.
    Before,
    /// What it makes was there, made by somebody else.
    Adopted,
}

/// The SQL of all migrations, and of what is granted to `grantees`, for other tools to apply.
pub fn script(names: &Names, extras: &[Extra], grantees: &[String]) -> String {
    let mut parts = vec![format!("-- outboxd: the tables of {}\n", names.display())];
    if names.schema() != "public" {
        let schema = names.quoted_schema();
        parts.push(format!("create schema if not exists {schema};\n"));
    }
    parts.extend(
        chosen(extras)
            .iter()
            .map(|migration| fill(names, migration.sql, OWN_ID_TYPE)),
    );
    if !grantees.is_empty() {
        let effects = extras.contains(&Extra::Effects);
        let own = Mapping::own(Template::constant("-"));
        parts.push(needs::script(names, &own, grantees, effects));
    }
    parts.join("\n")
}

pub(super) fn chosen(extras: &[Extra]) -> Vec<Migration> {
    let extras = extras.iter().map(|extra| extra.migration());
    MIGRATIONS.into_iter().chain(extras).collect()
}

/// Fills a migration with names; `id_type` is what ids of the outbox are made of.
pub(super) fn fill(names: &Names, sql: &str, id_type: &str) -> String {
    sql.replace("{outbox}", &names.outbox())
        .replace("{failures}", &names.failures())
        .replace("{instances}", &names.instances())
        .replace("{outbox_index}", &names.beside("_pending"))
        .replace("{failures_index}", &names.beside("_failures_lane"))
        .replace("{notify_function}", &names.qualified("_notify"))
        .replace("{keys}", &EffectsTable::IdempotencyKeys.name(names))
        .replace("{inbox}", &EffectsTable::Inbox.name(names))
        .replace("{schema}", &names.quoted_schema())
        .replace("{outbox_literal}", &quote_literal(&names.display()))
        .replace("{id_type}", id_type)
}

impl Outbox {
    /// Makes what is not there yet, in one transaction; may run several times, and side by side.
    /// Grants `grantees` what a relay needs. Gives each migration's name and what became of it.
    ///
    /// # Errors
    /// Also when an applied migration's text has changed since, tables found cannot be adopted, or there
    /// is no such grantee; nothing is changed then.
    pub async fn migrate(
        &self,
        extras: &[Extra],
        grantees: &[String],
    ) -> Result<Vec<(&'static str, Applied)>, DbError> {
        let mut session = self.database.connect().await?;
        session.begin(&self.timeouts).await?;
        let book = self.open_book(&mut session).await?;
        let mut done = Vec::new();
        for migration in chosen(extras) {
            if !self.mapping.is_own() && migration.name == PENDING_INDEX {
                done.push((migration.name, self.index_pending(&mut session).await?));
                continue;
            }
            let applied = self.apply(&mut session, &book, &migration).await?;
            done.push((migration.name, applied));
        }
        let table = Table::describe(&mut session, &self.names, &self.mapping).await?;
        self.verify_in(&mut session, &table).await?;
        if !grantees.is_empty() {
            self.grant(&mut session, grantees).await?;
        }
        session.commit().await?;
        session.close().await;
        Ok(done)
    }

    /// Waits for other migrators and opens the bookkeeping table; gives its name.
    async fn open_book(&self, session: &mut Session) -> Result<String, DbError> {
        let schema = self.names.quoted_schema();
        let lock = format!(
            "select pg_advisory_xact_lock(hashtextextended({}, 0))",
            quote_literal(&format!("outboxd_migrations {schema}"))
        );
        session.fetch("migrate", statement(lock)).await?;
        let book = format!("{schema}.\"outboxd_migrations\"");
        // `if not exists` asks for the privilege to create even where there is nothing to create.
        let exists = "select to_regnamespace($1) is not null, to_regclass($2) is not null";
        let query = statement(exists).bind(&schema).bind(&book);
        let row = session.fetch_one("migrate", query).await?;
        if !get::<bool>(&row, 0)? {
            let sql = format!("create schema {schema}");
            session.execute("migrate", statement(sql)).await?;
        }
        if !get::<bool>(&row, 1)? {
            let sql = format!(
                "create table {book} (table_name text, version integer, name text not null, checksum text not null,
                    applied_at timestamptz not null default now(), primary key (table_name, version))"
            );
            session.execute("migrate", statement(sql)).await?;
        }
        Ok(book)
    }

    async fn apply(
        &self,
        session: &mut Session,
        book: &str,
        migration: &Migration,
    ) -> Result<Applied, DbError> {
        if self.is_applied(session, book, migration).await? {
            return Ok(Applied::Before);
        }
        let found = self.is_found(session, migration).await?;
        if !found && migration.name == PENDING_INDEX {
            self.refuse_long_build(session).await?;
        }
        // Of several things, some may be missing.
        if !found || ["relay", EFFECTS].contains(&migration.name) {
            let id_type = self.id_type(session).await?;
            session
                .batch("migrate", fill(&self.names, migration.sql, id_type))
                .await?;
        }
        let note = format!(
            "insert into {book} (table_name, version, name, checksum)
             values ($1, $2, $3, encode(sha256(convert_to($4, 'UTF8')), 'hex'))"
        );
        let query = statement(note)
            .bind(self.names.table())
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.text());
        session.execute("migrate", query).await?;
        Ok(if found {
            Applied::Adopted
        } else {
            Applied::Now
        })
    }

    async fn is_applied(
        &self,
        session: &mut Session,
        book: &str,
        migration: &Migration,
    ) -> Result<bool, DbError> {
        let sql = format!(
            "select checksum = encode(sha256(convert_to($3, 'UTF8')), 'hex') from {book} where table_name = $1 and version = $2"
        );
        let query = statement(sql)
            .bind(self.names.table())
            .bind(migration.version)
            .bind(migration.text());
        let rows = session.fetch("migrate", query).await?;
        let Some(row) = rows.first() else {
            return Ok(false);
        };
        if get::<bool>(row, 0)? {
            return Ok(true);
        }
        Err(DbError::table(format!(
            "migration {} ({}) of {} was applied with another text than this outboxd has (the checksum in {book} differs): \
             migrate with the version that applied it, or a later one",
            migration.version,
            migration.name,
            self.names.display()
        )))
    }

    /// Whether what a migration makes is there already, by whatever name.
    async fn is_found(
        &self,
        session: &mut Session,
        migration: &Migration,
    ) -> Result<bool, DbError> {
        let names = &self.names;
        let found = match migration.name {
            "outbox" => format!("select {} is not null", names.regclass()),
            "relay" => format!(
                "select to_regclass({}) is not null or to_regclass({}) is not null",
                quote_literal(&names.failures()),
                quote_literal(&names.instances())
            ),
            PENDING_INDEX => {
                let table = Table::describe(session, names, &self.mapping).await?;
                let wrong = table.found.wrong_types(names, &self.mapping);
                if !wrong.is_empty() {
                    return Err(DbError::table(wrong.join("; ")));
                }
                let indexes = self.lane_indexes(session, table.found.oid).await?;
                return Ok(indexes.iter().any(LaneIndex::serves));
            }
            EFFECTS => return self.effects_found(session).await,
            _ => return Ok(false),
        };
        let row = session.fetch_one("migrate", statement(found)).await?;
        get(&row, 0)
    }

    /// Whether one of the tables for effects is there, and not something else's.
    async fn effects_found(&self, session: &mut Session) -> Result<bool, DbError> {
        let mut found = false;
        for table in EffectsTable::ALL {
            let name = table.name(&self.names);
            let lacks = match missing_columns(session, &name, table.columns()).await? {
                None => continue,
                Some(missing) if missing.is_empty() => not_unique(session, &name, table).await?,
                Some(missing) => Some(format!("the columns {}", missing.join(", "))),
            };
            if let Some(lacks) = lacks {
                return Err(DbError::table(format!(
                    "there is a table {name} already, without {lacks}: outboxd's must have this name. \
                     Rename yours, or give the outbox and them a schema of their own (--table outboxd.outbox)"
                )));
            }
            found = true;
        }
        Ok(found)
    }

    /// What ids are made of; before outboxd's own table is there, of what it will be.
    async fn id_type(&self, session: &mut Session) -> Result<&'static str, DbError> {
        if self.mapping.is_own() {
            return Ok(OWN_ID_TYPE);
        }
        let table = Table::describe(session, &self.names, &self.mapping).await?;
        Ok(table.id.sql_type())
    }

    /// Building an index keeps writers out: not on a large table.
    pub(super) async fn refuse_long_build(&self, session: &mut Session) -> Result<(), DbError> {
        let sql = format!("select pg_relation_size({}) / 8192", self.names.regclass());
        let row = session.fetch_one("migrate", statement(sql)).await?;
        if get::<i64>(&row, 0)? <= LARGE_TABLE_PAGES {
            return Ok(());
        }
        Err(DbError::table(format!(
            "{} is large and lacks the pending index, whose building here would keep writers out for long. \
             Build it beside them, then migrate again: {}",
            self.names.display(),
            Table::describe(session, &self.names, &self.mapping)
                .await?
                .pending_index(&self.mapping)
        )))
    }
}

/// Columns that must be unique together, and are not.
async fn not_unique(
    session: &mut Session,
    name: &str,
    table: EffectsTable,
) -> Result<Option<String>, DbError> {
    let sql = "select exists (select from pg_index i
        where i.indrelid = to_regclass($1) and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
          and $2 = array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality k (attnum, n)
                           join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum order by k.n))";
    for columns in table.keys() {
        let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
        let query = statement(sql).bind(name).bind(names);
        if !get::<bool>(&session.fetch_one("migrate", query).await?, 0)? {
            let columns = columns.join(", ");
            return Ok(Some(format!("a unique constraint on ({columns})")));
        }
    }
    Ok(None)
}
