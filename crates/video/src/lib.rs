//! From byte ranges of an object to timed RGB frames, and back to encoded files.
