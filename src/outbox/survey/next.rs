//! What a table lacks, as statements.

use super::{Found, Listed, SMALL, Surveyed, Table, order_column};
use crate::outbox::{expressions::of_row, quote_identifier, table::Order};

impl Surveyed {
    /// Notes the statements that are missing, in the order in which they are to be run.
    pub(super) fn plan(&mut self, listed: &Listed, table: &Table, by_index: bool) {
        if self.mapping.is_own() && !self.is_made {
            // `migrate` makes all of it.
            return;
        }
        self.mend_id(&table.found);
        let mut table = table.clone();
        let has_order =
            self.mapping.key.is_none() || order_column(&table.found, &self.mapping).is_some();
        if !has_order {
            let order = self.mapping.order.as_deref().unwrap_or("outbox_order");
            let statement = self.names.numbering(order);
            self.statements.push(format!("{statement};"));
            // The index is over the order that there is then.
            table.order = Order::Numbered(of_row(order));
            self.lacks_order = true;
        } else if by_index {
            return;
        }
        let size = if self.lacks_order {
            "; this one is for the order that is to be added"
        } else if listed.pages > SMALL {
            "; the table is large, and so `migrate` leaves its making to you"
        } else {
            "; `migrate` makes it, as the table is small"
        };
        let index = format!("{};", table.pending_index(&self.mapping));
        self.doubt(
            "pending index",
            format!("there is none that claims can read: each would read the whole table{size}"),
            &index,
        );
        self.statements.push(index);
    }

    fn mend_id(&mut self, found: &Found) {
        let Some(id) = found.column(&self.mapping.id) else {
            return;
        };
        let (outbox, column) = (self.names.outbox(), quote_identifier(&id.name));
        if !id.is_unique {
            let index = format!("create unique index concurrently on {outbox} ({column});");
            self.statements.push(index);
        }
        if !id.is_not_null {
            let never_null = format!("alter table {outbox} alter column {column} set not null;");
            self.statements.push(never_null);
        }
    }
}
