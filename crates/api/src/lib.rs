//! REST in, rows and ids out.
