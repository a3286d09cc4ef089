//! Property tests of the ledger: random interleavings against a model of a few lines.

mod home;
mod jobs;
mod steps;
mod workers;
mod world;
