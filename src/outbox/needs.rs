//! What a relay's role must be allowed to do: `check` looks for it, `migrate --grant-to` grants it. One
//! list, so that neither can know of a privilege that the other does not.
//!
//! # Design notes
//! * Granted is what any settings of `run` need. DELETE on the outbox is among it, which only
//!   `--retention 0` in `mark` mode does without: a role need not be touched when a setting is.
//! * What was granted is looked for afterwards. PostgreSQL only warns where the granting role has
//!   nothing to give.

use super::{
    DbError, EffectsTable, Names, Outbox, Session, quote_identifier, session::statement, table::get,
};
use crate::{
    mapping::{Done, Mapping},
    template::quote_literal,
};

/// One thing that must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Without it not even the tables' names can be looked up.
    UseSchema,
    ReadEvents,
    /// Lock and mark them. Also where published rows are deleted: a claim locks as an UPDATE does.
    ClaimEvents,
    /// At once, or when they are pruned.
    DeleteEvents,
    KeepFailures,
    KeepInstances,
    /// Where there is such a table.
    Clean(EffectsTable),
}

impl Need {
    /// Everything, in the order in which it is granted and looked for.
    pub(super) const ALL: [Self; 8] = [
        Self::UseSchema,
        Self::ReadEvents,
        Self::ClaimEvents,
        Self::DeleteEvents,
        Self::KeepFailures,
        Self::KeepInstances,
        Self::Clean(EffectsTable::IdempotencyKeys),
        Self::Clean(EffectsTable::Inbox),
    ];

    /// Whether any settings of `run` need it.
    fn is_needed(self, mapping: &Mapping) -> bool {
        self != Self::DeleteEvents || mapping.is_own() || mapping.done == Done::Delete
    }

    /// As a GRANT writes them: a verb, and the columns it is for, if not all.
    fn privileges(self, mapping: &Mapping) -> Vec<(&'static str, Vec<&str>)> {
        let whole = |verbs: &[&'static str]| verbs.iter().map(|verb| (*verb, Vec::new())).collect();
        match self {
            Self::UseSchema => whole(&["usage"]),
            Self::ReadEvents => whole(&["select"]),
            Self::ClaimEvents => {
                let mut columns: Vec<_> = mapping.set_columns().collect();
                if columns.is_empty() {
                    // To lock a row it takes the right to update some column.
                    columns.push(if mapping.is_own() {
                        "published_at"
                    } else {
                        &mapping.id
                    });
                }
                vec![("update", columns)]
            }
            Self::DeleteEvents => whole(&["delete"]),
            Self::KeepFailures | Self::KeepInstances => {
                whole(&["select", "insert", "update", "delete"])
            }
            Self::Clean(_) => {
                let mut all: Vec<_> = whole(&["select", "delete"]);
                all.push(("update", vec!["expires_at"]));
                all
            }
        }
    }

    fn table(self, names: &Names) -> Option<String> {
        Some(match self {
            Self::UseSchema => return None,
            Self::ReadEvents | Self::ClaimEvents | Self::DeleteEvents => names.outbox(),
            Self::KeepFailures => names.failures(),
            Self::KeepInstances => names.instances(),
            Self::Clean(table) => table.name(names),
        })
    }

    /// What they are privileges on, as a GRANT writes it.
    pub(super) fn on(self, names: &Names) -> String {
        let schema = || format!("schema {}", names.quoted_schema());
        self.table(names).unwrap_or_else(schema)
    }

    /// All of it, without the role.
    pub(super) fn grant(self, names: &Names, mapping: &Mapping) -> String {
        let privileges = self.privileges(mapping);
        let privileges: Vec<_> = privileges.iter().map(written).collect();
        format!("grant {} on {}", privileges.join(", "), self.on(names))
    }
}

fn written((verb, columns): &(&str, Vec<&str>)) -> String {
    if columns.is_empty() {
        return (*verb).into();
    }
    let columns: Vec<_> = columns.iter().map(|column| readable(column)).collect();
    format!("{verb} ({})", columns.join(", "))
}

/// Quoted where it must be.
fn readable(column: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    if column.chars().all(plain) {
        return column.into();
    }
    quote_identifier(column)
}

/// The GRANTs, for other tools to apply.
pub(super) fn script(names: &Names, mapping: &Mapping, roles: &[String], effects: bool) -> String {
    let grants = grants(names, mapping, roles, effects);
    format!("-- What a relay does with them, and no more.\n{grants}\n")
}

/// The GRANTs, one a line.
pub(super) fn grants(names: &Names, mapping: &Mapping, roles: &[String], effects: bool) -> String {
    let wanted =
        |need: &Need| need.is_needed(mapping) && (effects || !matches!(need, Need::Clean(_)));
    let needs = Need::ALL.into_iter().filter(wanted);
    let grants = needs.map(|need| format!("{} to {};", need.grant(names, mapping), quoted(roles)));
    grants.collect::<Vec<_>>().join("\n")
}

fn quoted(roles: &[String]) -> String {
    let roles = roles.iter().map(|role| quote_identifier(role));
    roles.collect::<Vec<_>>().join(", ")
}

impl Outbox {
    /// A query: which privileges of a need a role lacks; `role` is an SQL expression. A table that is not
    /// there lacks none.
    pub(super) fn lacking(&self, need: Need, role: &str) -> String {
        let privileges = need.privileges(&self.mapping);
        let rows = privileges.iter().map(|privilege| {
            let held = self.held(need, privilege, role);
            format!("({}, {held})", quote_literal(&written(privilege)))
        });
        let rows: Vec<_> = rows.collect();
        format!(
            "select privilege from (values {}) p (privilege, held) where not held",
            rows.join(", ")
        )
    }

    fn held(&self, need: Need, (verb, columns): &(&str, Vec<&str>), role: &str) -> String {
        let Some(table) = need.table(&self.names) else {
            let schema = quote_literal(self.names.schema());
            return format!(
                "(select has_schema_privilege({role}, oid, '{verb}') from pg_namespace where nspname = {schema})"
            );
        };
        let table = format!("to_regclass({})", quote_literal(&table));
        let of_columns = |columns: Vec<String>| {
            format!(
                "(select bool_and(has_column_privilege({role}, {table}, c, '{verb}')) from unnest(array[{}]) c)",
                columns.join(", ")
            )
        };
        if need == Need::ReadEvents {
            // Of these columns will do.
            let columns = self.mapping.columns().into_iter();
            return of_columns(columns.map(|(_, column)| quote_literal(column)).collect());
        }
        if columns.is_empty() {
            return format!("has_table_privilege({role}, {table}, '{verb}')");
        }
        of_columns(columns.iter().map(|column| quote_literal(column)).collect())
    }

    /// Grants the roles all of it, and sees that they have it.
    pub(super) async fn grant(
        &self,
        session: &mut Session,
        roles: &[String],
    ) -> Result<(), DbError> {
        self.refuse_unknown_roles(session, roles).await?;
        for need in Need::ALL {
            if let Need::Clean(table) = need
                && self.may_clean(session, table).await?.is_none()
            {
                continue;
            }
            if !need.is_needed(&self.mapping) {
                continue;
            }
            let grant = need.grant(&self.names, &self.mapping);
            let grant = format!("{grant} to {}", quoted(roles));
            session.execute("migrate", statement(grant.clone())).await?;
            for role in roles {
                let role = format!("{}::name", quote_literal(role));
                let lacking = statement(self.lacking(need, &role));
                if !session.fetch("migrate", lacking).await?.is_empty() {
                    return Err(DbError::privilege(format!(
                        "--grant-to: the role that migrates may not {grant}: migrate as the owner of {}",
                        need.on(&self.names)
                    )));
                }
            }
        }
        Ok(())
    }

    async fn refuse_unknown_roles(
        &self,
        session: &mut Session,
        roles: &[String],
    ) -> Result<(), DbError> {
        let sql = "select role from unnest($1::text[]) role where not exists (select from pg_roles where rolname = role)";
        let query = statement(sql).bind(roles.to_vec());
        let unknown = session.fetch("migrate", query).await?;
        let Some(row) = unknown.first() else {
            return Ok(());
        };
        let role = quote_identifier(get(row, 0)?);
        Err(DbError::table(format!(
            "--grant-to: there is no role {role}: create it, then migrate again: create role {role} login password '…'"
        )))
    }
}
