//! What becomes of a row by its mapping.

use serde_json::{Value, json};

use crate::{
    common::database::Database,
    lab::{File, run},
};

/// What would be sent for the rows of a table.
fn peeked(database: &Database, mapping: &str) -> Vec<Value> {
    let file = File::new(mapping);
    let flags = ["--database-url", &database.url, "--mapping", file.path()];
    run(&[&["migrate"], &flags[..]].concat()).exits(0);
    let peek = run(&[&["peek"], &flags[..]].concat()).exits(0);
    let lines = peek.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn headers_come_from_arrays_and_from_columns() {
    let database = Database::empty().await;
    database
        .execute(
            "create table outbox (id bigserial primary key, names text[], vals varchar(9)[], tenant uuid, kind text, body bytea);
             insert into outbox (names, vals, tenant, kind, body) values
               (array['a', 'tenant', 'a', null], array['1', 'own', '2', 'x'], '5f0c1c1e-7a3c-4c5a-9d0e-0a7c1b6f3d11', 'K', '\\xff00'),
               (array['b'], array[]::text[], null, 'a\"b\\c', null),
               (null, null, null, null, 'plain')",
        )
        .await;
    let seen = peeked(
        &database,
        "id = \"id\"\npayload = \"body\"\nheaders_arrays = [\"names\", \"vals\"]\ndestination = { constant = \"all\" }\ndone = \"delete\"\n\
         content_type = { constant = \"application/x\" }\n[headers]\ntenant = \"tenant\"\nkind = \"v1.{kind}\"\n",
    );
    let headers: Vec<_> = seen.iter().map(|message| &message["headers"]).collect();
    // A row's own headers win, and of several by one name the last.
    assert_eq!(
        headers[0],
        &json!({"a": "2", "tenant": "own", "kind": "v1.K"})
    );
    assert_eq!(headers[1], &json!({"b": "null", "kind": "v1.a\"b\\c"}));
    assert_eq!(headers[2], &json!({}));
    for message in &seen {
        assert_eq!(message["destination"], "all");
        assert_eq!(message["content_type"], "application/x");
        assert_eq!(message["key"], Value::Null);
    }
}

#[tokio::test]
async fn values_are_columns_templates_constants_and_the_first_that_is_there() {
    let database = Database::empty().await;
    database
        .execute(
            "create type mood as enum ('sad', 'ok');
             create table outbox (\"Id\" uuid primary key, seq int not null, mood mood, topic text, n numeric, made bigint, body text,
                                  head text default '{\"h\": [1, 2.50],\n \"Content-Type\": \"text/csv\"}');
             insert into outbox values ('00000000-0000-0000-0000-000000000002', 1, 'ok', 'own', 1.10, 1700000000123, '[1]', default),
                                       ('00000000-0000-0000-0000-000000000001', 2, 'sad', null, 2, -5, '{}', '{')",
        )
        .await;
    let seen = peeked(
        &database,
        "id = \"Id\"\norder = \"seq\"\npayload = \"body\"\ndestination = [\"topic\", \"{{x}}-{n}\"]\nkey = \"n\"\ntype = \"mood\"\n\
         event_id = \"ev-{seq}\"\ntime = \"made\"\nheaders_json = \"head\"\ncontent_type = { constant = \"application/json\" }\ndone = \"delete\"\n\
         [headers]\nseq = \"seq\"\n",
    );
    let [first, second] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(first["destination"], "own");
    assert_eq!(first["id"], "ev-1");
    assert_eq!(first["key"], "1.10");
    assert_eq!(first["type"], "ok");
    assert_eq!(first["content_type"], "text/csv", "the row's own wins");
    assert_eq!(first["headers"], json!({"h": "[1,2.50]", "seq": "1"}));
    assert_eq!(first["row"], "00000000-0000-0000-0000-000000000002");
    assert!(first.to_string().contains("1700000000123"), "{first}");
    assert_eq!(second["destination"], "{x}-2");
    let error = second["error"].as_str().unwrap();
    assert!(error.contains("headers are not valid JSON"), "{error}");
}
