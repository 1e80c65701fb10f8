//! The effect: an order, what others must hear of it, and the response, in one transaction.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use sqlx::PgPool;

use super::answer::Problem;
use crate::{
    database,
    store::{self, Incomplete, Token},
};

const TABLE: &str = "
    create table if not exists orders (
        id bigint generated always as identity primary key,
        customer text not null,
        item text not null,
        cents bigint not null,
        placed_at timestamptz not null default now()
    );
";

const INSERT_ORDER: &str =
    "insert into orders (customer, item, cents) values ($1, $2, $3) returning id";

const INSERT_EVENT: &str = "
    insert into outbox (aggregate_type, aggregate_id, event_type, payload)
    values ($1, 'order-' || $2, 'OrderPlaced',
        jsonb_build_object('order', $2, 'user', $3, 'cents', $4))";

const LONGEST_ITEM: usize = 200;
const DEAREST: i64 = 100_000_000;

/// Makes the shop's table; the others are made by `outboxd migrate --with effects`.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::Error> {
    database::create_table(pool, TABLE).await
}

/// An order that may be placed.
#[derive(Debug, PartialEq)]
pub struct Order {
    user: String,
    item: String,
    cents: i64,
}

/// What a client sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    item: String,
    cents: i64,
}

impl Order {
    /// Reads and checks a body.
    pub fn parse(user: &str, body: &[u8]) -> Result<Self, Problem> {
        let refused = |why: String| Problem::Body(StatusCode::BAD_REQUEST, why);
        let Wanted { item, cents } =
            serde_json::from_slice(body).map_err(|error| refused(error.to_string()))?;
        if item.is_empty() || item.len() > LONGEST_ITEM || item.contains('\0') {
            let why = format!("item must have 1 to {LONGEST_ITEM} bytes, none of them zero");
            return Err(refused(why));
        }
        if !(1..=DEAREST).contains(&cents) {
            return Err(refused(format!("cents must be from 1 to {DEAREST}")));
        }
        Ok(Self {
            user: user.to_owned(),
            item,
            cents,
        })
    }

    /// Places it. On an error nothing of it is there (a transaction that is dropped is rolled back) or, if
    /// the answer to the COMMIT was lost, perhaps all of it.
    pub async fn place(
        &self,
        pool: &PgPool,
        topic: &str,
        token: &Token,
    ) -> Result<store::Response, Incomplete> {
        let mut transaction = pool.begin().await?;
        let id: i64 = sqlx::query_scalar(INSERT_ORDER)
            .bind(&self.user)
            .bind(&self.item)
            .bind(self.cents)
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query(INSERT_EVENT)
            .bind(topic)
            .bind(id)
            .bind(&self.user)
            .bind(self.cents)
            .execute(&mut *transaction)
            .await?;
        let response = self.placed(id);
        store::complete(&mut transaction, token, &response).await?;
        transaction.commit().await?;
        Ok(response)
    }

    fn placed(&self, id: i64) -> store::Response {
        let headers = [
            ("content-type".to_owned(), "application/json".to_owned()),
            ("location".to_owned(), format!("{}/{id}", super::ORDERS)),
        ];
        let body = json!({ "order": id, "item": self.item, "cents": self.cents });
        store::Response {
            status: StatusCode::CREATED.as_u16(),
            headers: headers.into(),
            body: body.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_body_is_an_order() {
        let order = Order::parse("ann", br#"{"item":"book","cents":1999}"#).unwrap();
        let expected = Order {
            user: "ann".into(),
            item: "book".into(),
            cents: 1999,
        };
        assert_eq!(order, expected);
    }

    #[test]
    fn what_the_database_would_refuse_is_refused_before() {
        for body in [
            "",
            "[]",
            r#"{"item":"book"}"#,
            r#"{"item":"book","cents":1.5}"#,
            r#"{"item":"book","cents":0}"#,
            r#"{"item":"book","cents":100000001}"#,
            r#"{"item":"","cents":1}"#,
            r#"{"item":"a\u0000b","cents":1}"#,
            r#"{"item":"book","cents":1,"gift":true}"#,
        ] {
            assert!(Order::parse("ann", body.as_bytes()).is_err(), "{body}");
        }
    }
}
