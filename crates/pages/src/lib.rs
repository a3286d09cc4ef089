//! Traces and results as self-contained HTML and as terminal text. No I/O.
