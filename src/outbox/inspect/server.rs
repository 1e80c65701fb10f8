//! The server: is it the primary, does it keep what it says, is there room, does anything hold back vacuum?

use sqlx::postgres::PgSslMode;

use super::{Finding, Inspection};
use crate::outbox::{DbError, session::statement, table::get, url};

/// The oldest version the PostgreSQL project still cares for.
const OLDEST_VERSION: u32 = 140_000;
/// Connections that should be free: a relay's workers, its upkeep, a second replica, and a person.
const HEADROOM: i64 = 10;

/// Whether what goes to the database can be read, or answered, by somebody else on the way.
pub fn encryption(database_url: &str) -> Option<Finding> {
    let options = url::connect_options(database_url).ok()?;
    if url::is_local(&options) {
        return None;
    }
    let mode = options.get_ssl_mode();
    Some(if url::is_unverified(&options) {
        Finding::warn(
            "TLS",
            format!("the server's name and certificate are not verified (sslmode {mode:?})"),
            "use sslmode=verify-full, with sslrootcert for a private CA",
        )
    } else if matches!(mode, PgSslMode::Disable) {
        Finding::warn(
            "TLS",
            "the connection is not encrypted",
            "leave sslmode=disable out of --database-url: then the certificate is verified",
        )
    } else {
        Finding::ok("TLS", "encrypted, certificate and name verified")
    })
}

impl Inspection<'_> {
    pub(super) async fn server(&mut self) -> Result<(), DbError> {
        self.version_and_role().await?;
        self.limits().await?;
        self.commits().await?;
        self.horizon().await
    }

    async fn version_and_role(&mut self) -> Result<(), DbError> {
        let version = self.session.server_version();
        let sql = "select pg_is_in_recovery(), current_setting('server_version'), current_database()::text, current_user::text,
                          coalesce(inet_server_port(), 0), current_setting('server_encoding')";
        let row = self.session.fetch_one("inspect", statement(sql)).await?;
        let (number, database, role): (String, String, String) =
            (get(&row, 1)?, get(&row, 2)?, get(&row, 3)?);
        if version != 0 && version < OLDEST_VERSION {
            self.warn(
                "server",
                format!(
                    "PostgreSQL {number} gets no fixes any more, and outboxd is not tested with it"
                ),
                "upgrade to PostgreSQL 14 or later",
            );
        }
        if get::<bool>(&row, 0)? {
            self.wrong(
                "server",
                "it is a standby: nothing can be claimed or marked there",
                "point --database-url at the primary",
            );
        } else {
            self.ok(
                "connection",
                format!("PostgreSQL {number}, database {database}, role {role}"),
            );
        }
        let encoding: String = get(&row, 5)?;
        if encoding != "UTF8" {
            self.warn(
                "encoding",
                format!("the database is in {encoding}: one event with text that UTF-8 cannot hold stops all others"),
                "keep the outbox in a database of encoding UTF8",
            );
        }
        let port: i32 = get(&row, 4)?;
        if port != 0 && port != i32::from(self.intent.port) {
            let timeout = self.intent.publish_timeout.as_secs() + 10;
            self.ok(
                "pooler",
                format!(
                    "the server listens on another port ({port}), so something stands between. A claim keeps its transaction open \
                     for up to {timeout} s: PgBouncer's idle_transaction_timeout, query_timeout and transaction_timeout \
                     should be off or longer, and NOTIFY needs a direct --notify-database-url"
                ),
            );
        }
        Ok(())
    }

    async fn limits(&mut self) -> Result<(), DbError> {
        let sql = "select current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
                            - (select count(*) from pg_stat_activity where backend_type = 'client backend'),
                          (select rolconnlimit::bigint from pg_roles where rolname = current_user),
                          coalesce(nullif(current_setting('transaction_timeout', true), '0'), '')";
        let row = self.session.fetch_one("inspect", statement(sql)).await?;
        let (free, limit): (i64, i64) = (get(&row, 0)?, get(&row, 1)?);
        if free < HEADROOM {
            self.warn(
                "connections",
                format!("the server has only {free} connections free"),
                "raise max_connections, put PgBouncer in front, or lower --workers (a busy relay uses one for each, and one more)",
            );
        } else if (0..HEADROOM).contains(&limit) {
            self.warn(
                "connections",
                format!("this role may open only {limit} connections"),
                "raise its CONNECTION LIMIT, or lower --workers (a busy relay uses one for each, and one more)",
            );
        } else {
            self.ok("connections", format!("{free} are free"));
        }
        let timeout: String = get(&row, 2)?;
        if !timeout.is_empty() {
            self.warn(
                "timeouts",
                format!("transaction_timeout is {timeout}: claims whose publish takes longer are cut off, and published again"),
                "switch it off for this role: alter role … set transaction_timeout = 0 (claims bound themselves)",
            );
        }
        Ok(())
    }

    /// With `synchronous_commit = off` a crash takes back what others have read already.
    async fn commits(&mut self) -> Result<(), DbError> {
        let off = self
            .text(
                "select 'the server' from pg_settings where name = 'synchronous_commit' and reset_val = 'off'
                  union select coalesce('role ' || quote_ident(r.rolname), 'all roles') || coalesce(' in database ' || quote_ident(d.datname), '')
                   from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase
                  where 'synchronous_commit=off' = any(s.setconfig) and (d.datname is null or d.datname = current_database())",
            )
            .await?;
        if off.is_empty() {
            self.ok("durability", "synchronous_commit is on by default");
        } else {
            self.warn(
                "durability",
                format!(
                    "synchronous_commit is off for {}: a crash may take back a commit whose event was sent",
                    off.join(", ")
                ),
                "switch it on for the roles that write events",
            );
        }
        Ok(())
    }

    /// Whoever holds back vacuum makes each claim wade through the index entries of published rows.
    async fn horizon(&mut self) -> Result<(), DbError> {
        let pins = self
            .text(
                "select format('a transaction of %s (pid %s), open for %s', coalesce(nullif(application_name, ''), usename::text, '?'), pid,
                               date_trunc('second', now() - xact_start))
                   from pg_stat_activity where xact_start < now() - interval '10 minutes' and backend_type <> 'walsender'
                 union all select format('prepared transaction %L, from %s', gid, date_trunc('second', prepared))
                   from pg_prepared_xacts where prepared < now() - interval '10 minutes'
                 union all select format('replication slot %s, %s transactions behind', quote_ident(slot_name), greatest(age(xmin), age(catalog_xmin)))
                   from pg_replication_slots where greatest(age(xmin), age(catalog_xmin)) > 1000000",
            )
            .await?;
        if pins.is_empty() {
            self.ok("vacuum horizon", "no old transaction or slot holds it back");
        }
        for pin in pins {
            self.warn(
                "vacuum horizon",
                format!("{pin}: published rows cannot be vacuumed away, and claims become slower"),
                "end the transaction, or drop the slot if nobody needs it",
            );
        }
        let off = self
            .text("select 'x' from pg_settings where name = 'autovacuum' and setting = 'off'")
            .await?;
        if !off.is_empty() {
            self.warn(
                "autovacuum",
                "autovacuum is off on this server",
                "set autovacuum = on: an outbox is updated and deleted all the time",
            );
        }
        Ok(())
    }
}
