//! The written forms: the trace's JSON schema as committed, and JSON there and back.

mod roundtrip;
mod schema;
