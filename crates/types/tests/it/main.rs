//! The written forms: the trace's JSON schema as committed, and JSON there and back.

#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod roundtrip;
mod schema;
