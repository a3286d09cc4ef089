//! Whole-system tests; see `main.rs`.
