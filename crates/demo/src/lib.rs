//! The demonstration domain: a generator of synthetic long videos and questions. No I/O.
