//! The nouns of spectemp: ids, video URIs, questions, plans, rounds, traces. No I/O.
