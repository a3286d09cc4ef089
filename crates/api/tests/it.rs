//! The API over a real socket, a real ledger, and a client that knows nothing of the server's code.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod suite;
