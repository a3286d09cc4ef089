//! The published protocol: the body of `POST /chat/completions`, its reply, the list of `GET /models`, and errors.
//! Source: the OpenAPI document of the OpenAI API, and what vLLM, SGLang, llama.cpp and mistral.rs add to it. Replies are
//! read leniently: fields that are not used here are not looked at.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The body of a request.
#[derive(Debug, Serialize)]
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) temperature: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) stop: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_logprobs: Option<u32>,
    /// What only this server knows.
    #[serde(flatten)]
    pub(crate) own: Map<String, Value>,
}

/// One message.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct ChatMessage {
    pub(crate) role: &'static str,
    pub(crate) content: Content,
}

/// A plain text where there is no image: some servers and templates take nothing else from system and assistant.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<ChatPart>),
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ChatPart {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct ImageUrl {
    pub(crate) url: String,
}

/// The reply.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatReply {
    pub(crate) choices: Vec<Choice>,
    #[serde(default)]
    pub(crate) usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Choice {
    pub(crate) message: ReplyMessage,
    #[serde(default)]
    pub(crate) finish_reason: Option<String>,
    #[serde(default)]
    pub(crate) logprobs: Option<Logprobs>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ReplyMessage {
    #[serde(default)]
    pub(crate) content: Option<String>,
    /// The thought, where the server takes it out of the text.
    #[serde(default, alias = "reasoning")]
    pub(crate) reasoning_content: Option<String>,
    #[serde(default)]
    pub(crate) refusal: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Logprobs {
    #[serde(default)]
    pub(crate) content: Option<Vec<TokenLogprob>>,
}

/// One generated token.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenLogprob {
    #[serde(flatten)]
    pub(crate) token: Spelled,
    #[serde(default)]
    pub(crate) top_logprobs: Option<Vec<Spelled>>,
}

/// A token as a server spells it. `token` is a text (mistral.rs: an id among the alternatives), `bytes` a list of bytes or
/// null (mistral.rs: a text).
#[derive(Debug, Deserialize)]
pub(crate) struct Spelled {
    #[serde(default)]
    token: Value,
    #[serde(default)]
    bytes: Value,
    #[serde(default)]
    pub(crate) logprob: Option<f64>,
}

impl Spelled {
    /// What the token adds to the text, as bytes: half a character has no other spelling.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
        match (&self.bytes, &self.token) {
            (Value::Array(bytes), _) => bytes.iter().map(byte).collect(),
            (Value::String(text), _) | (Value::Null, Value::String(text)) => Some(text.clone().into_bytes()),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Usage {
    #[serde(default)]
    pub(crate) prompt_tokens: u64,
    #[serde(default)]
    pub(crate) completion_tokens: u64,
    #[serde(default)]
    pub(crate) prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PromptDetails {
    #[serde(default)]
    pub(crate) cached_tokens: Option<u64>,
}

/// `GET /models`.
#[derive(Debug, Deserialize)]
pub(crate) struct ModelList {
    pub(crate) data: Vec<ListedModel>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ListedModel {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) owned_by: Option<String>,
    /// vLLM and SGLang: what was loaded.
    #[serde(default)]
    pub(crate) root: Option<String>,
    /// vLLM and SGLang: most tokens of a context.
    #[serde(default)]
    pub(crate) max_model_len: Option<u32>,
    /// llama.cpp: facts of the file.
    #[serde(default)]
    pub(crate) meta: Option<Map<String, Value>>,
}

/// What a server says of an error: `{"error": {"message": …}}`, `{"error": "…"}`, `{"message": …}` or `{"detail": …}`.
pub(crate) fn said(body: &str) -> String {
    /// An error page of a proxy is not repeated whole.
    const SHOWN: usize = 300;
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let places = ["/error/message", "/error", "/message", "/detail"];
    let found = places.iter().find_map(|place| json.pointer(place)).filter(|found| !found.is_null());
    let text = match found {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => body.to_owned(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_all_houses_are_read() {
        for (body, expected) in [
            (r#"{"error":{"message":"no such model","type":"x","code":404}}"#, "no such model"),
            (r#"{"error":"busy"}"#, "busy"),
            (r#"{"object":"error","message":"too long","code":400}"#, "too long"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (r#"{"detail":[{"loc":["body"]}]}"#, r#"[{"loc":["body"]}]"#),
            ("<html>\n  Bad   Gateway</html>", "<html> Bad Gateway</html>"),
            ("", ""),
        ] {
            assert_eq!(said(body), expected);
        }
        assert_eq!(said(&"é".repeat(400)).chars().count(), 301);
    }

    #[test]
    fn tokens_are_spelled_in_several_ways() {
        let bytes = |json: &str| serde_json::from_str::<Spelled>(json).unwrap().bytes();
        assert_eq!(bytes(r#"{"token":"é","bytes":[195],"logprob":-1}"#), Some(vec![195]));
        assert_eq!(bytes(r#"{"token":"é","bytes":null,"logprob":-1}"#), Some("é".into()));
        assert_eq!(bytes(r#"{"token":" A"}"#), Some(" A".into()));
        assert_eq!(bytes(r#"{"token":317,"bytes":" A","logprob":-1}"#), Some(" A".into()));
        assert_eq!(bytes(r#"{"token":317,"logprob":-1}"#), None);
        assert_eq!(bytes(r#"{"token":"a","bytes":[300]}"#), None);
    }
}
