//! What a table lacks, as statements.

use super::{Found, Listed, Names, SMALL, Surveyed, Table, doubts::numbering, order_column};
use crate::{
    mapping::Mapping,
    outbox::{needs, quote_identifier},
};

/// The role that GRANTs are printed for.
const ROLE: &str = "outboxd";

/// What a relay's role needs, once the relay's own tables are there.
pub(super) fn grants(names: &Names, mapping: &Mapping) -> Vec<String> {
    let script = needs::script(names, mapping, &[ROLE.into()], false);
    let grants = script.lines().filter(|line| !line.starts_with("--"));
    grants.map(Into::into).collect()
}

impl Surveyed {
    /// Notes the statements that are missing.
    pub(super) fn plan(&mut self, listed: &Listed, table: &Table, found: &Found, by_index: bool) {
        if self.mapping.is_own() && !self.is_made {
            // `migrate` makes all of it.
            return;
        }
        let outbox = self.names.outbox();
        if let Some(id) = found.column(&self.mapping.id) {
            let column = quote_identifier(&id.name);
            if !id.is_unique {
                self.statements.push(format!(
                    "create unique index concurrently on {outbox} ({column});"
                ));
            }
            if !id.is_not_null {
                self.statements.push(format!(
                    "alter table {outbox} alter column {column} set not null;"
                ));
            }
        }
        if self.mapping.key.is_some() && order_column(found, &self.mapping).is_none() {
            let order = self.mapping.order.as_deref().unwrap_or("outbox_order");
            self.statements
                .push(format!("{};", numbering(&outbox, order)));
            // The index is over the order: `run --migrate` makes it then.
            return;
        }
        if by_index {
            return;
        }
        if listed.pages > SMALL {
            self.doubt(
                "there is no index of pending rows, and the table is large: `migrate` leaves its making to you",
                None,
            );
        }
        self.statements
            .push(format!("{};", table.pending_index(&self.mapping)));
    }
}
