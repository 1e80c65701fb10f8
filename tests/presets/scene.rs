//! What is told of a preset: rows as its system writes them, messages as they must arrive, and the table
//! as the system expects it afterwards. And the relay's work in between.

use sqlx::{AssertSqlSafe, Connection as _};

use crate::{
    arrival::{Arrival, Body, arrivals},
    common::{
        broker::{Broker, Kind},
        database::Database,
        relay::outboxd,
        unique,
    },
};

/// One preset, and what is expected of it. In all texts `{topic}` stands for a destination of the test's own.
pub struct Scene {
    preset: &'static str,
    flags: Vec<&'static str>,
    /// Changes to table and mapping that the preset's file advises.
    advice: Option<(&'static str, &'static str)>,
    destination: &'static str,
    rows: Vec<&'static str>,
    messages: Vec<Message>,
    is_ordered: bool,
}

/// A message as it must arrive.
#[derive(Clone)]
pub struct Message {
    id: &'static str,
    key: Option<&'static str>,
    kind: Option<&'static str>,
    content_type: &'static str,
    payload: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
}

/// A message with that id, a key if it has one, and JSON in it unless it is a tombstone.
pub fn message(
    id: &'static str,
    key: impl Into<Option<&'static str>>,
    payload: impl Into<Option<&'static str>>,
) -> Message {
    Message {
        id,
        key: key.into(),
        kind: None,
        content_type: "application/json",
        payload: payload.into(),
        headers: Vec::new(),
    }
}

impl Message {
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.kind = Some(kind);
        self
    }

    pub fn content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn arrival(&self, topic: &str) -> Arrival {
        let text = |text: &str| text.replace("{topic}", topic);
        let mut headers: Vec<_> = (self.headers.iter())
            .map(|(name, value)| ((*name).to_owned(), text(value)))
            .collect();
        headers.sort();
        Arrival {
            id: self.id.into(),
            key: self.key.map(text),
            kind: self.kind.map(text),
            content_type: self.content_type.into(),
            payload: self.payload.map(|payload| Body(text(payload).into_bytes())),
            headers,
        }
    }
}

/// The scene of a preset.
pub fn preset(name: &'static str) -> Scene {
    Scene {
        preset: name,
        flags: Vec::new(),
        advice: None,
        destination: "{topic}",
        rows: Vec::new(),
        messages: Vec::new(),
        is_ordered: true,
    }
}

impl Scene {
    /// Flags that its user must give.
    pub fn flags(mut self, flags: &[&'static str]) -> Self {
        self.flags.extend(flags);
        self
    }

    /// With what its file advises to run on the table, and to write into a mapping after `preset = …`.
    pub fn advised(mut self, sql: &'static str, mapping: &'static str) -> Self {
        self.advice = Some((sql, mapping));
        self
    }

    /// Where events go, unless it is `{topic}`.
    pub fn to(mut self, destination: &'static str) -> Self {
        self.destination = destination;
        self
    }

    /// Statements of the application, each a transaction.
    pub fn rows(mut self, rows: &[&'static str]) -> Self {
        self.rows.extend(rows);
        self
    }

    /// What arrives: in this order per key; of those without a key, in any.
    pub fn arrive(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.messages.extend(messages);
        self
    }

    /// What arrives, in any order.
    pub fn arrive_somehow(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.is_ordered = false;
        self.arrive(messages)
    }

    /// Relays the rows to both brokers, and says how the table must be afterwards: SQL that gives true.
    pub async fn and_then(self, expected: &str) {
        let database = Database::empty().await;
        database.execute(&table(self.preset)).await;
        let topic = unique("preset");
        let mapping = self.mapping(&database).await;
        let flags: Vec<_> = (self
            .flags
            .iter()
            .map(|flag| flag.replace("{topic}", &topic)))
        .collect();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let base = [
            "--database-url",
            &database.url,
            mapping.flag(),
            mapping.value(),
        ];
        self.succeed(&[&["migrate"], &base[..], &of_migrate(&flags)].concat());
        for kind in [Kind::Kafka, Kind::Rabbitmq] {
            let broker = Broker::shared(kind);
            let destination = self.destination.replace("{topic}", &topic);
            broker.create(&destination).await;
            self.write_rows(&database, &topic).await;
            self.succeed(&[&["drain"], &base[..], &flags, &broker.flags()].concat());
            self.compare(arrivals(&broker, &destination).await, &topic, kind);
            let expected = format!("select ({expected})::int::bigint");
            let as_expected = database.number(&expected).await;
            assert_eq!(
                as_expected, 1,
                "preset {}, {kind:?}: {expected}",
                self.preset
            );
        }
    }

    /// Writes the rows into empty tables.
    async fn write_rows(&self, database: &Database, topic: &str) {
        let mut connection = database.connect().await;
        for row in [EMPTY].iter().chain(&self.rows) {
            let done = sqlx::raw_sql(AssertSqlSafe(row.replace("{topic}", topic)));
            let done = done.execute(&mut connection).await;
            done.unwrap_or_else(|error| panic!("preset {}: {row}: {error}", self.preset));
        }
        connection.close().await.unwrap();
    }

    fn compare(&self, mut arrived: Vec<Arrival>, topic: &str, kind: Kind) {
        let mut messages: Vec<_> = self.messages.iter().map(|it| it.arrival(topic)).collect();
        for list in [&mut arrived, &mut messages] {
            // Stable: per key, the order stays.
            list.sort_by_key(|it| match (&it.key, self.is_ordered) {
                (Some(key), true) => (key.clone(), String::new()),
                _ => (String::new(), it.id.clone()),
            });
        }
        assert_eq!(arrived, messages, "preset {}, {kind:?}", self.preset);
    }

    fn succeed(&self, arguments: &[&str]) {
        let (code, _, errors) = outboxd(arguments);
        assert_eq!(code, 0, "preset {}: {arguments:?}:\n{errors}", self.preset);
    }

    /// The mapping to use; with advice followed, one of the user's own.
    async fn mapping(&self, database: &Database) -> Mapping {
        let Some((sql, mapping)) = self.advice else {
            return Mapping::Preset(self.preset);
        };
        let preset = file(&format!("presets/{}.toml", self.preset));
        for line in [sql, mapping].iter().flat_map(|text| text.lines()) {
            let line = line.trim();
            assert!(preset.contains(line), "{} advises no: {line}", self.preset);
        }
        database.execute(sql).await;
        let path = std::env::temp_dir().join(unique("mapping"));
        let text = format!("preset = \"{}\"\n{mapping}\n", self.preset);
        std::fs::write(&path, text).unwrap();
        Mapping::File(path.to_str().unwrap().into())
    }
}

enum Mapping {
    Preset(&'static str),
    File(String),
}

impl Mapping {
    fn flag(&self) -> &str {
        match self {
            Self::Preset(_) => "--preset",
            Self::File(_) => "--mapping",
        }
    }

    fn value(&self) -> &str {
        match self {
            Self::Preset(name) => name,
            Self::File(path) => path,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Self::File(path) = self {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Of the flags, those that `migrate` has too.
fn of_migrate<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    let pairs = flags.chunks(2).filter(|pair| pair[0] != "--ordering");
    pairs.flatten().copied().collect()
}

/// Empties the system's tables, and begins to number anew.
const EMPTY: &str = "do $$ declare tables text; number regclass;
    begin
        select string_agg(c.oid::regclass::text, ', ') into tables from pg_class c
         where c.relkind = 'r' and c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
           and c.relname !~ '(_failures|_instances|^outboxd_migrations)$';
        execute format('truncate %s', tables);
        for number in select oid::regclass from pg_class where relkind = 'S' loop
            execute format('alter sequence %s restart', number);
        end loop;
    end $$";

/// The DDL of a system's table.
fn table(preset: &str) -> String {
    file(&format!("tests/presets/tables/{preset}.sql"))
}

fn file(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
