//! One request of the loop as the body that a server takes.

use bytes::Bytes;
use serde_json::{Map, Value};
use spectemp_engine::{Message, Part, Request};

use crate::{Dialect, Settings, message::chat_messages, reply::Asked, wire::ChatRequest};

/// Everything that a body depends on, besides the request.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) model: String,
    pub(crate) dialect: Dialect,
    pub(crate) settings: Settings,
    /// Hosted OpenAI models refuse `max_tokens`, most other servers know nothing else.
    pub(crate) new_limit: bool,
}

impl Form {
    /// The body. Images are encoded here, so it takes a while. With `stops` the server is told where to stop.
    ///
    /// # Errors
    /// An image that cannot be encoded.
    pub(crate) fn body(&self, request: &Request, stops: bool) -> Result<Bytes, String> {
        let stop = if stops && self.dialect.takes_stops() { request.stops.clone() } else { Vec::new() };
        let greedy = request.sampling.temperature == 0.0;
        let seeded = !greedy && self.dialect.takes_seeds();
        let asks = self.dialect.gives_logprobs() && self.settings.top_logprobs > 0;
        let limit = Some(request.max_new_tokens);
        let body = ChatRequest {
            model: self.model.clone(),
            messages: chat_messages(&request.messages, self.settings.picture)?,
            temperature: request.sampling.temperature,
            top_p: (!greedy).then_some(request.sampling.top_p),
            seed: seeded.then(|| seed(request.sampling.seed)),
            max_tokens: limit.filter(|_| !self.new_limit),
            max_completion_tokens: limit.filter(|_| self.new_limit),
            logprobs: asks.then_some(true),
            top_logprobs: asks.then_some(self.settings.top_logprobs),
            own: self.own(request, &stop),
            stop,
        };
        serde_json::to_vec(&body).map(Bytes::from).map_err(|cause| format!("it cannot be written: {cause}"))
    }

    /// The fields that only this kind of server knows.
    fn own(&self, request: &Request, stop: &[String]) -> Map<String, Value> {
        let mut own = Map::new();
        let constraint = request.grammar.as_ref().and_then(|grammar| self.dialect.constraint(grammar));
        own.extend(constraint.map(|(field, value)| (field.to_owned(), value)));
        if let Some(field) = self.dialect.keeps_stop().filter(|_| !stop.is_empty()) {
            own.insert(field.to_owned(), Value::Bool(true));
        }
        own
    }

    /// What the reply is measured against.
    pub(crate) fn asked(&self, request: &Request) -> Asked {
        Asked {
            stops: request.stops.clone(),
            score: request.score.clone(),
            visual_tokens: self.visual_tokens(&request.messages),
        }
    }

    /// One token per square of `multiple` × `multiple` pixels, as Qwen2.5-VL has it.
    fn visual_tokens(&self, messages: &[Message]) -> u64 {
        let side = self.settings.pixels.multiple;
        let tokens = |part: &Part| match part {
            Part::Image(frame) => u64::from(frame.width / side) * u64::from(frame.height / side),
            Part::Text(_) | Part::Generated { .. } => 0,
        };
        messages.iter().flat_map(|message| &message.parts).map(tokens).sum()
    }
}

/// Servers take 31 bits without a second thought; 32 are a sign or a command to some.
fn seed(seed: u64) -> u32 {
    ((seed ^ (seed >> 32)) as u32) & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spectemp_engine::{Ending, Grammar, RgbImage, Role, Sampling};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn request(temperature: f64) -> Request {
        let frame = RgbImage { width: 56, height: 28, data: vec![7; 56 * 28 * 3].into() };
        let parts = vec![Part::Text("0s: ".to_owned()), Part::Image(frame)];
        Request {
            messages: vec![Message { role: Role::User, parts }],
            sampling: Sampling { temperature, top_p: 0.9, seed: u64::MAX - 5 },
            max_new_tokens: 64,
            grammar: None,
            think_tokens: 64,
            stops: Vec::new(),
            score: None,
            cancel: CancellationToken::new(),
        }
    }

    fn body(dialect: Dialect, new_limit: bool, request: &Request) -> Value {
        let form = Form { model: "q".to_owned(), dialect, settings: Settings::default(), new_limit };
        let mut body: Value = serde_json::from_slice(&form.body(request, true).unwrap()).unwrap();
        let messages = body.as_object_mut().unwrap().remove("messages").unwrap();
        let url = messages[0]["content"][1]["image_url"]["url"].as_str().unwrap().to_owned();
        assert!(url.starts_with("data:image/jpeg;base64,"), "{url}");
        assert_eq!(form.asked(request).visual_tokens, 2);
        body
    }

    #[test]
    fn greedy_bodies_say_no_more_than_they_must() {
        let greedy = request(0.0);
        let plain = json!({
            "model": "q", "temperature": 0.0, "max_tokens": 64, "logprobs": true, "top_logprobs": 20,
        });
        assert_eq!(body(Dialect::Plain, false, &greedy), plain);
        let hosted = body(Dialect::Plain, true, &greedy);
        assert_eq!((&hosted["max_completion_tokens"], &hosted["max_tokens"]), (&json!(64), &Value::Null));
        let transformers = json!({ "model": "q", "temperature": 0.0, "max_tokens": 64 });
        assert_eq!(body(Dialect::Transformers, false, &greedy), transformers);
    }

    #[test]
    fn draws_are_seeded_where_the_server_can() {
        let drawn = body(Dialect::LlamaCpp, false, &request(0.7));
        assert_eq!((&drawn["temperature"], &drawn["top_p"]), (&json!(0.7), &json!(0.9)));
        assert_eq!(drawn["seed"], json!(5), "both halves of the seed count");
        assert_eq!(body(Dialect::MistralRs, false, &request(0.7))["seed"], Value::Null);
    }

    #[test]
    fn stop_strings_stay_where_the_server_can_leave_them() {
        let stopped = Request { stops: vec!["</answer>".to_owned()], ..request(0.0) };
        for (dialect, field) in [
            (Dialect::Vllm, Some("include_stop_str_in_output")),
            (Dialect::Sglang, Some("no_stop_trim")),
            (Dialect::LlamaCpp, None),
        ] {
            assert_eq!(
                body(Dialect::Transformers, false, &stopped),
                body(Dialect::Transformers, false, &request(0.0))
            );
            let body = body(dialect, false, &stopped);
            assert_eq!(body["stop"], json!(["</answer>"]));
            assert_eq!(field.map(|field| &body[field]), field.map(|_| &json!(true)));
            assert_eq!(body.as_object().unwrap().len(), 6 + usize::from(field.is_some()), "{body}");
        }
    }

    #[test]
    fn models_are_held_to_a_form_in_their_servers_words() {
        let endings = vec![Ending::Frames { labels: vec!["3.5".to_owned()], most: 1 }];
        let held = Request { grammar: Some(Grammar { endings }), ..request(0.0) };
        let regex = json!(held.grammar.as_ref().unwrap().pattern(None).regex());
        assert!(regex.as_str().unwrap().contains(r"3\.5"), "{regex}");
        let own = |dialect| body(dialect, false, &held);
        assert_eq!(own(Dialect::Vllm)["structured_outputs"], json!({ "regex": regex }));
        assert_eq!(own(Dialect::Sglang)["regex"], regex);
        assert_eq!(own(Dialect::MistralRs)["grammar"], json!({ "type": "regex", "value": regex }));
        let gbnf = own(Dialect::LlamaCpp)["grammar"].as_str().unwrap().to_owned();
        assert!(gbnf.starts_with("root ::= \"<think>\" (["), "{gbnf}");
        for dialect in [Dialect::Plain, Dialect::Transformers] {
            assert_eq!(own(dialect), body(dialect, false, &request(0.0)));
        }
    }
}
