//! Everything durable: the ledger (SQLite), objects, locations, the home folder.
