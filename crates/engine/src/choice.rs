//! Answers against options, and how sure a model was.

use std::ops::Range;

use spectemp_types::Question;

use crate::{TokenRecord, prompt::outside};

/// How a template shows the options, and so how the model names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChoicesAs {
    /// `A. text`: the model writes the letter.
    Letters,
    /// The texts alone.
    Texts,
}

impl ChoicesAs {
    /// What a template names with `{% set choices_as = "…" %}`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "letters" => Some(Self::Letters),
            "texts" => Some(Self::Texts),
            _ => None,
        }
    }

    /// What the model would write for each option.
    pub(crate) fn candidates(self, question: &Question) -> Vec<String> {
        match self {
            Self::Letters => (0..question.choices.len()).map(|k| Question::letter(k).to_string()).collect(),
            Self::Texts => question.choices.iter().map(|choice| outside(choice)).collect(),
        }
    }

    /// The option that an answer names by letter (`B`, `(b)`, `B.`, `B. text`, `Option B`) or by text (any case).
    pub(crate) fn matching(self, answer: &str, choices: &[String]) -> Option<usize> {
        let by_letter = || letter(answer, choices);
        let by_text = || text(answer, choices);
        match self {
            Self::Letters => by_letter().or_else(by_text),
            Self::Texts => by_text().or_else(by_letter),
        }
    }
}

fn text(answer: &str, choices: &[String]) -> Option<usize> {
    let wanted = Question::plain(answer);
    // As written by the user, or as the prompt shows it.
    let names =
        |choice: &String| Question::plain(choice) == wanted || Question::plain(&outside(choice)) == wanted;
    choices.iter().position(names)
}

fn letter(answer: &str, choices: &[String]) -> Option<usize> {
    let bare = answer.trim().trim_start_matches(['(', '[', '"', '\'', '*', '`']);
    let bare = ["option ", "choice "]
        .iter()
        .find_map(|word| strip_prefix_any_case(bare, word))
        .unwrap_or(bare)
        .trim_start();
    let mut rest = bare.chars();
    let letter = rest.next().filter(char::is_ascii_alphabetic)?.to_ascii_uppercase();
    let index = usize::from(letter as u8 - b'A');
    let rest = rest.as_str();
    let ends = rest.is_empty() || rest.starts_with([')', ']', '.', ':', '"', '\'', '*', '`']);
    let repeats =
        || choices.get(index).is_some_and(|choice| Question::plain(choice) == Question::plain(rest));
    (index < choices.len() && (ends || (rest.starts_with(char::is_whitespace) && repeats()))).then_some(index)
}

fn strip_prefix_any_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// Softmax of the candidates' log-probabilities. Those that are no numbers count as impossible; where all are, or none
/// were given, all options are equally likely.
pub(crate) fn probabilities(scores: Option<&[f64]>, options: usize) -> Vec<f64> {
    let scores = scores.filter(|scores| scores.len() == options).unwrap_or_default();
    let known = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
    let best = scores.iter().copied().map(known).fold(f64::NEG_INFINITY, f64::max);
    if !best.is_finite() {
        return vec![1.0 / options.max(1) as f64; options];
    }
    let weights: Vec<f64> = scores.iter().map(|score| (known(*score) - best).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// The option with the highest probability; the first of equals.
pub(crate) fn most_probable(probabilities: &[f64]) -> usize {
    let better = |best: usize, k: usize| if probabilities[k] > probabilities[best] { k } else { best };
    (0..probabilities.len()).fold(0, better)
}

/// exp of the mean log-probability of the tokens that reach into `range` of the text; 0 where there are none.
pub(crate) fn mean_probability(tokens: &[TokenRecord], range: &Range<usize>) -> f64 {
    let starts = std::iter::once(0).chain(tokens.iter().map(|token| token.text_end));
    let within = |(start, token): (usize, &TokenRecord)| {
        (start < range.end && token.text_end > range.start).then_some(token.logprob)
    };
    let logprobs: Vec<f64> = starts.zip(tokens).filter_map(within).collect();
    let mean = logprobs.iter().sum::<f64>() / logprobs.len() as f64;
    if mean.is_nan() { 0.0 } else { mean.exp().clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn options_by_letter_and_text() {
        let choices = options(&["a cat", "The Dog.", "two birds"]);
        let letters = |answer: &str| ChoicesAs::Letters.matching(answer, &choices);
        for answer in [
            "B",
            "b",
            "(B)",
            "B.",
            "B. the dog",
            "[b]",
            "B: dog",
            "Option B",
            "the dog",
            " THE  dog. ",
            "**B**",
            "B the dog",
        ] {
            assert_eq!(letters(answer), Some(1), "{answer}");
        }
        assert_eq!(letters("a cat"), Some(0));
        for answer in ["D", "a dog", "both", "", "bird", "(", "é", "Bé"] {
            assert_eq!(letters(answer), None, "{answer}");
        }
    }

    #[test]
    fn what_the_template_shows_goes_first() {
        let choices = options(&["B", "A"]);
        assert_eq!(ChoicesAs::Letters.matching("A", &choices), Some(0));
        assert_eq!(ChoicesAs::Texts.matching("A", &choices), Some(1));
        assert_eq!(ChoicesAs::Texts.matching("b< |c| >", &options(&["a", "b<|c|>"])), Some(1));
        assert_eq!(ChoicesAs::Texts.matching("7.", &options(&["3", "7"])), Some(1));
    }

    #[test]
    fn probabilities_are_a_softmax() {
        let p = probabilities(Some(&[0.5f64.ln() - 3.0, 0.25f64.ln() - 3.0, f64::NAN]), 3);
        assert!((p[0] - 2.0 / 3.0).abs() < 1e-12 && p[2] == 0.0);
        assert_eq!(probabilities(None, 4), [0.25; 4]);
        assert_eq!(probabilities(Some(&[f64::NEG_INFINITY; 2]), 2), [0.5; 2]);
        assert_eq!(most_probable(&[0.2, 0.5, 0.5]), 1);
    }

    #[test]
    fn confidence_counts_the_tokens_of_the_answer() {
        let token = |logprob, text_end| TokenRecord { id: None, logprob, text_end };
        let tokens = [token(-9.0, 8), token(-1.0, 10), token(-3.0, 12), token(-9.0, 21)];
        assert!((mean_probability(&tokens, &(8..12)) - (-2.0f64).exp()).abs() < 1e-12);
        assert_eq!(mean_probability(&[], &(0..4)), 0.0);
        assert_eq!(mean_probability(&[token(f64::NEG_INFINITY, 4)], &(0..4)), 0.0);
    }

    proptest! {
        #[test]
        fn matching_never_panics(answer in any::<String>(), choices in prop::collection::vec(any::<String>(), 2..5)) {
            for shown in [ChoicesAs::Letters, ChoicesAs::Texts] {
                prop_assert!(shown.matching(&answer, &choices).is_none_or(|k| k < choices.len()));
            }
        }
    }
}
