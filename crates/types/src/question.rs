//! A question, open or with options to choose from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked. With `choices` the answer is one of them, without it is free text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The question as the user wrote it.
    pub text: String,
    /// The texts of the options, in order: option 0 is `A`. Empty for an open question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// Why a question cannot be asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuestionError {
    /// No text.
    #[error("question is empty")]
    Empty,
    /// Longer than [`Question::MAX_BYTES`].
    #[error("question or option has {bytes} bytes, at most {} are allowed", Question::MAX_BYTES)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A NUL character, which databases and tokenizers treat each in their own way.
    #[error("question or option holds a NUL character: leave it out")]
    Nul,
    /// One option is no choice, and letters end at 26.
    #[error("question has {0} choices: give none, or 2 to 26")]
    Choices(usize),
    /// An option without text.
    #[error("choice {0} is empty")]
    EmptyChoice(char),
    /// The same option twice: an answer could not be told apart.
    #[error("choices {0} and {1} are the same")]
    SameChoice(char, char),
}

impl Question {
    /// The longest question or option, in bytes.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// A checked question.
    ///
    /// # Errors
    /// Empty or overlong texts, NUL characters, one or more than 26 choices, equal choices.
    pub fn new(text: impl Into<String>, choices: Vec<String>) -> Result<Self, QuestionError> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(QuestionError::Empty);
        }
        if choices.len() == 1 || choices.len() > 26 {
            return Err(QuestionError::Choices(choices.len()));
        }
        let longest = choices.iter().map(String::len).chain([text.len()]).max().unwrap_or(0);
        if longest > Self::MAX_BYTES {
            return Err(QuestionError::TooLong { bytes: longest });
        }
        if choices.iter().chain([&text]).any(|part| part.contains('\0')) {
            return Err(QuestionError::Nul);
        }
        for (i, choice) in choices.iter().enumerate() {
            if choice.trim().is_empty() {
                return Err(QuestionError::EmptyChoice(Self::letter(i)));
            }
            if let Some(j) = choices[..i].iter().position(|other| other.trim() == choice.trim()) {
                return Err(QuestionError::SameChoice(Self::letter(j), Self::letter(i)));
            }
        }
        Ok(Self { text, choices })
    }

    /// The letter of option `index`: 0 is `A`.
    pub fn letter(index: usize) -> char {
        char::from(b'A' + (index % 26) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_questions_are_refused() {
        let ask = |text: &str, choices: &[&str]| {
            Question::new(text, choices.iter().map(|c| (*c).to_owned()).collect())
        };
        assert_eq!(ask(" ", &[]), Err(QuestionError::Empty));
        assert_eq!(ask("q", &["a"]), Err(QuestionError::Choices(1)));
        assert_eq!(ask("q", &["a", ""]), Err(QuestionError::EmptyChoice('B')));
        assert_eq!(ask("q", &["a", "b", "a "]), Err(QuestionError::SameChoice('A', 'C')));
        assert_eq!(ask("q", &["a", "b\0"]), Err(QuestionError::Nul));
        assert!(ask(&"q".repeat(9000), &[]).is_err());
        assert!(ask("q", &["a", "b"]).is_ok());
    }
}
