//! Jobs become sessions of rounds become results.
