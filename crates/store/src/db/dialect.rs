//! What the two databases spell differently.

use crate::LedgerKind;

/// Token, SQLite, Postgres.
const TOKENS: [(&str, &str, &str); 13] = [
    // Milliseconds since 1970 by the database's clock, the same within one statement.
    (
        "{now}",
        "cast(round(unixepoch('now', 'subsec') * 1000) as integer)",
        "cast(floor(extract(epoch from statement_timestamp()) * 1000) as bigint)",
    ),
    // A row that a transaction decides upon stays as it is until the end of the transaction. SQLite has one writer.
    ("{lock}", "", "for no key update"),
    ("{lock_job}", "", "for no key update of j"),
    ("{skip_locked}", "", "for update skip locked"),
    ("{skip_locked_job}", "", "for no key update of j skip locked"),
    // A list of ids, bound as one JSON text.
    (
        "{ids_1}",
        "(select value from json_each($1))",
        "(select cast(value as uuid) from json_array_elements_text($1) as e (value))",
    ),
    (
        "{ids_2}",
        "(select value from json_each($2))",
        "(select cast(value as uuid) from json_array_elements_text($2) as e (value))",
    ),
    (
        "{texts_1}",
        "(select value from json_each($1))",
        "(select value from json_array_elements_text($1) as e (value))",
    ),
    // A list of objects, bound as one JSON text: rows `e (key, value)` in their order.
    ("{rows_1}", "json_each($1) as e", "json_array_elements($1) with ordinality as e (value, key)"),
    ("{as_uuid}", "", "::uuid"),
    ("{as_jsonb}", "", "::jsonb"),
    ("{unhex}", "unhex(", "decode("),
    ("{unhex_end}", ")", ", 'hex')"),
];

/// The text as `kind` wants it.
pub(crate) fn spell(text: &str, kind: LedgerKind) -> String {
    let mut spelt = text.to_owned();
    if !text.contains('{') {
        return spelt;
    }
    for (token, sqlite, postgres) in TOKENS {
        if spelt.contains(token) {
            let word = if kind == LedgerKind::Sqlite { sqlite } else { postgres };
            spelt = spelt.replace(token, word);
        }
    }
    spelt
}
