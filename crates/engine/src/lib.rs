//! The loop of rounds: strategies, prompts, output parsing, budgets. No I/O.
