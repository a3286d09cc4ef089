//! Log-probabilities of candidates, option letters after `<answer>` for example, from the alternatives that a server gives
//! for each token that it generated.
//!
//! A candidate is followed along the generated tokens for as long as they spell it; where they part, the alternatives that
//! go on with it are summed. So its score is exact where it ends or parts from the output at one token, which letters do;
//! a longer candidate counts for the part up to and with the token in which it parts. What is not among the alternatives
//! counts as impossible. Nothing is asked of the server a second time.

use spectemp_engine::Score;

use crate::tokens::Token;

/// One log-probability per candidate; none where the text never holds what they follow, or no alternatives were given.
pub(crate) fn scores(tokens: &[Token], text: &str, score: &Score) -> Option<Vec<f64>> {
    let from = text.find(&score.after)? + score.after.len();
    let first = tokens.iter().position(|token| token.end > from)?;
    let tokens = &tokens[first..];
    if tokens[0].others.is_empty() || tokens[0].start > from {
        return None;
    }
    // What of the first token stands before the candidates.
    let glue = &text.as_bytes()[tokens[0].start..from];
    let follow = |candidate: &String| follow(tokens, &[glue, candidate.trim().as_bytes()].concat());
    Some(score.candidates.iter().map(follow).collect())
}

fn follow(tokens: &[Token], wanted: &[u8]) -> f64 {
    let (mut rest, mut sum) = (wanted, 0.0);
    for token in tokens {
        let bytes = without_lead(&token.bytes, rest);
        let goes_on = bytes.len() < rest.len() && rest.starts_with(bytes);
        if !goes_on {
            return sum + mass(token, rest).ln();
        }
        sum += token.logprob;
        rest = &rest[bytes.len()..];
    }
    // The output was cut before the candidate ended.
    sum
}

/// The probability of all alternatives that go on with `rest`.
fn mass(token: &Token, rest: &[u8]) -> f64 {
    let listed = token.others.iter().any(|(bytes, _)| *bytes == token.bytes);
    let itself = (!listed).then_some((&token.bytes, token.logprob));
    let all = token.others.iter().map(|(bytes, logprob)| (bytes, *logprob)).chain(itself);
    all.filter(|(bytes, _)| goes_with(without_lead(bytes, rest), rest))
        .map(|(_, logprob)| logprob.exp())
        .sum()
}

/// True where a token is a part of `rest`, or the whole of it and then something that is no part of a word.
fn goes_with(bytes: &[u8], rest: &[u8]) -> bool {
    if bytes.is_empty() {
        return false;
    }
    match bytes.strip_prefix(rest) {
        Some(more) => more.first().is_none_or(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric()),
        None => rest.starts_with(bytes),
    }
}

/// A token without white space in front, unless that is wanted.
fn without_lead<'b>(bytes: &'b [u8], rest: &[u8]) -> &'b [u8] {
    if rest.first().is_some_and(u8::is_ascii_whitespace) { bytes } else { bytes.trim_ascii_start() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens with their alternatives as probabilities; the first alternative is the one that was generated.
    fn tokens(list: &[&[(&str, f64)]]) -> (String, Vec<Token>) {
        let (mut text, mut tokens) = (String::new(), Vec::new());
        for others in list {
            let start = text.len();
            text.push_str(others[0].0);
            let others: Vec<_> = others.iter().map(|(t, p)| (t.as_bytes().to_vec(), p.ln())).collect();
            let (bytes, logprob) = others[0].clone();
            tokens.push(Token { bytes, start, end: text.len(), logprob, others });
        }
        (text, tokens)
    }

    fn probabilities(list: &[&[(&str, f64)]], candidates: &[&str]) -> Option<Vec<f64>> {
        let (text, tokens) = tokens(list);
        let candidates = candidates.iter().map(|candidate| (*candidate).to_owned()).collect();
        let score = Score { after: "<answer>".to_owned(), candidates };
        let rounded = |score: f64| (score.exp() * 1e6).round() / 1e6;
        Some(scores(&tokens, &text, &score)?.into_iter().map(rounded).collect())
    }

    #[test]
    fn letters_are_read_from_one_token() {
        let end: &[(&str, f64)] = &[("</answer>", 1.0)];
        let letters = [("B", 0.5), ("A", 0.2), (" A", 0.1), ("An", 0.1), ("C.", 0.05)];
        let given = probabilities(&[&[("<answer>", 1.0)], &letters, end], &["A", "B", "C", "D"]);
        assert_eq!(given, Some(vec![0.3, 0.5, 0.05, 0.0]));
    }

    #[test]
    fn a_candidate_may_begin_inside_a_token() {
        let letters = [(">B", 0.6), (">A", 0.3), (">", 0.1)];
        let given = probabilities(&[&[("<answer", 1.0)], &letters], &["A", "B"]);
        assert_eq!(given, Some(vec![0.4, 0.7]), "what is open goes with both");
        let spaced = [("\n", 0.9), ("A", 0.1)];
        let given = probabilities(&[&[("<answer>", 1.0)], &spaced, &[("B", 0.5), ("A", 0.5)]], &["A", "B"]);
        assert_eq!(given, Some(vec![0.45, 0.45]));
    }

    #[test]
    fn longer_candidates_are_followed_to_where_they_part() {
        let list: [&[(&str, f64)]; 4] = [
            &[("<answer>", 1.0)],
            &[("red", 0.8), ("blue", 0.2)],
            &[(" car", 0.75), (" van", 0.15), ("</", 0.1)],
            &[("</answer>", 1.0)],
        ];
        let given = probabilities(&list, &["red car", "red van", "blue car", "green"]);
        assert_eq!(given, Some(vec![0.6, 0.12, 0.2, 0.0]));
    }

    #[test]
    fn without_the_place_or_alternatives_there_are_none() {
        assert_eq!(probabilities(&[&[("<segment>", 1.0)], &[("A", 1.0)]], &["A"]), None);
        assert_eq!(probabilities(&[&[("<answer>", 1.0)]], &["A"]), None);
        let (text, mut tokens) = tokens(&[&[("<answer>", 1.0)], &[("A", 0.4)]]);
        tokens[1].others.clear();
        let score = Score { after: "<answer>".to_owned(), candidates: vec!["A".to_owned()] };
        assert_eq!(scores(&tokens, &text, &score), None, "one probability alone would count as certainty");
    }
}
