//! Whole-system tests of spectemp, one binary.

mod ask;
mod imports;
mod kill;
mod run;
mod support;
