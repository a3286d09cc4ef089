//! A grammar in llguidance's Lark: one terminal per piece, so that masks of free text come from its slices and literal
//! text is forced.

use spectemp_engine::{Grammar, Pattern, THOUGHT_CLOSES, THOUGHT_OPENS};

/// The grammar's text.
pub(super) fn lark(grammar: &Grammar) -> String {
    let mut terminals = Vec::new();
    let mut row = |pieces: Vec<Pattern>| {
        let names: Vec<String> = pieces.iter().map(|piece| terminal(&mut terminals, piece)).collect();
        names.join(" ")
    };
    let thought =
        row(vec![Pattern::text(THOUGHT_OPENS), Grammar::thought(None), Pattern::text(THOUGHT_CLOSES)]);
    let endings: Vec<String> = grammar.endings.iter().map(|ending| row(ending.pieces())).collect();
    format!("start: {thought} ending\nending: {}\n{}", endings.join(" | "), terminals.join("\n"))
}

fn terminal(terminals: &mut Vec<String>, piece: &Pattern) -> String {
    let name = format!("T{}", terminals.len());
    terminals.push(format!("{name}: /{}/", piece.regex()));
    name
}
