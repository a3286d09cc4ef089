//! What servers do differently beyond the published protocol. Each row was written from the server's own documentation;
//! docs/servers.md says which ones were run.

use serde_json::{Value, json};
use spectemp_engine::Grammar;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The published protocol and nothing else.
    Plain,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llama.cpp's `llama-server`.
    LlamaCpp,
    /// mistral.rs.
    MistralRs,
    /// `transformers serve`.
    Transformers,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Plain, Self::Vllm, Self::Sglang, Self::LlamaCpp, Self::MistralRs, Self::Transformers];

    /// Its word in an address.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llamacpp",
            Self::MistralRs => "mistralrs",
            Self::Transformers => "transformers",
        }
    }

    /// The one of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    /// The one whose servers say `owned_by` of their models.
    pub(crate) fn of_owner(owned_by: &str) -> Self {
        match owned_by {
            "vllm" => Self::Vllm,
            "sglang" => Self::Sglang,
            "llamacpp" => Self::LlamaCpp,
            _ => Self::Plain,
        }
    }

    /// Whether the server answers for the models that it lists only.
    pub(crate) fn knows_its_models(self) -> bool {
        matches!(self, Self::Vllm | Self::Sglang)
    }

    /// Whether log-probabilities can be asked for.
    pub(crate) fn gives_logprobs(self) -> bool {
        self != Self::Transformers
    }

    /// Whether draws can be repeated by a seed.
    pub(crate) fn takes_seeds(self) -> bool {
        self != Self::MistralRs
    }

    /// Whether the server stops at stop strings. (`transformers serve` 5.23 fails over them where a model sees images.)
    pub(crate) fn takes_stops(self) -> bool {
        self != Self::Transformers
    }

    /// The field that makes the server leave a stop string in the text that it ended, where there is one.
    pub(crate) fn keeps_stop(self) -> Option<&'static str> {
        match self {
            Self::Vllm => Some("include_stop_str_in_output"),
            Self::Sglang => Some("no_stop_trim"),
            _ => None,
        }
    }

    /// Whether the server can hold its model to a form.
    pub(crate) fn takes_grammars(self) -> bool {
        matches!(self, Self::Vllm | Self::Sglang | Self::LlamaCpp | Self::MistralRs)
    }

    /// The field that holds the model to a form. Regular expressions where the server takes them: all of its grammar
    /// engines do, while their words for grammars differ. The thought is not bounded: servers count no tokens of it.
    pub(crate) fn constraint(self, grammar: &Grammar) -> Option<(&'static str, Value)> {
        let pattern = grammar.pattern(None);
        match self {
            Self::Vllm => Some(("structured_outputs", json!({ "regex": pattern.regex() }))),
            Self::Sglang => Some(("regex", Value::from(pattern.regex()))),
            Self::LlamaCpp => Some(("grammar", Value::from(format!("root ::= {}", pattern.gbnf())))),
            Self::MistralRs => Some(("grammar", json!({ "type": "regex", "value": pattern.regex() }))),
            Self::Plain | Self::Transformers => None,
        }
    }
}
