//! Requests and replies that the tests share.

use serde_json::{Value, json};
use spectemp_engine::{Message, Part, Request, RgbImage, Role, Sampling};
use spectemp_remote::{Address, ApiKey, RemoteError, RemoteVlm};
use tokio_util::sync::CancellationToken;

use crate::double::Double;

/// A frame of 56 × 28 px with a gradient.
pub(crate) fn frame() -> RgbImage {
    let pixel = |k: u32| [(k % 56 * 4) as u8, (k / 56 * 9) as u8, 120];
    RgbImage { width: 56, height: 28, data: (0..56 * 28).flat_map(pixel).collect() }
}

/// A greedy request: system, a frame with its time, a question.
pub(crate) fn request() -> Request {
    let text = |text: &str| Part::Text(text.to_owned());
    let asked = vec![text("1.5s: "), Part::Image(frame()), text("\nWhat is it?")];
    Request {
        messages: vec![
            Message { role: Role::System, parts: vec![text("Answer.")] },
            Message { role: Role::User, parts: asked },
        ],
        sampling: Sampling { temperature: 0.0, top_p: 1.0, seed: 7 },
        max_new_tokens: 64,
        grammar: None,
        think_tokens: 64,
        stops: vec!["</answer>".to_owned()],
        score: None,
        cancel: CancellationToken::new(),
    }
}

/// A reply that says `text`.
pub(crate) fn said(text: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "qwen",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text, "refusal": null },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": { "prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49 },
    })
}

/// An address at the double: `kind`, and the settings of a query.
pub(crate) fn address(double: &Double, kind: &str, query: &str) -> Address {
    format!("{kind}+{}?{query}#qwen", double.base).parse().unwrap()
}

/// The model of the double, without a key.
pub(crate) async fn open(double: &Double, kind: &str, query: &str) -> RemoteVlm {
    RemoteVlm::open(&address(double, kind, query), None).await.unwrap()
}

/// The same where it must fail.
pub(crate) async fn refused(address: &Address, key: Option<&str>) -> RemoteError {
    let key = key.map(|key| ApiKey::new(key).unwrap());
    match RemoteVlm::open(address, key).await {
        Ok(_) => panic!("{address} was opened"),
        Err(error) => error,
    }
}
