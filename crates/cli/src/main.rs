//! The `spectemp` binary.

fn main() {}
