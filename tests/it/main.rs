//! Whole-system tests of spectemp, one binary.

mod imports;
