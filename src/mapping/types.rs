//! What the columns of a part may be made of.

/// The types of columns of a part of a mapping; what is read as text may be anything.
pub fn types(part: &str, column: &str, is_own: bool) -> Option<&'static [&'static str]> {
    Some(match (part, is_own) {
        // The pending index is over the key itself.
        (_, true) if ["aggregate_id", "topic"].contains(&column) => &["text", "character varying"],
        ("id", true) => &["bigint"],
        ("id", false) => &[
            "bigint",
            "integer",
            "smallint",
            "uuid",
            "text",
            "character varying",
        ],
        ("payload", _) => &["jsonb", "json", "text", "character varying", "bytea"],
        ("headers_json", _) => &["jsonb", "json", "text", "character varying"],
        ("headers_arrays", _) => &["text[]", "character varying[]"],
        ("time" | "done", true) => &["timestamp with time zone", "timestamp without time zone"],
        ("time", false) => &[
            "timestamp with time zone",
            "timestamp without time zone",
            "bigint",
        ],
        _ => return None,
    })
}
