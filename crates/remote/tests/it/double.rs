//! The double: `GET /v1/models` and `POST /v1/chat/completions` of the published OpenAPI document. It takes nothing that
//! the document (or, where it plays a certain server, that server's documentation) does not name, looks at every image,
//! and plays one prepared reply after the other.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, sync::Notify};

/// What a request gets.
pub(crate) enum Play {
    /// 200 and this JSON.
    Reply(Value),
    /// A status with headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Nothing, until the client goes away.
    Silence,
    /// Half of a body, then the connection ends.
    Half,
    /// Nothing until [`Double::let_go`], then this JSON.
    Held(Value),
}

/// What the double is strict about.
#[derive(Clone)]
pub(crate) struct Manners {
    pub(crate) model: &'static str,
    pub(crate) key: Option<&'static str>,
    /// Fields beyond the published document.
    pub(crate) extra: &'static [&'static str],
    /// What `GET /models` answers.
    pub(crate) models: Result<Value, u16>,
}

impl Default for Manners {
    fn default() -> Self {
        let models = json!({ "object": "list", "data": [
            { "id": "qwen", "object": "model", "created": 1_700_000_000, "owned_by": "somebody" },
        ]});
        Self { model: "qwen", key: None, extra: &[], models: Ok(models) }
    }
}

#[derive(Default)]
struct Stage {
    plays: Mutex<VecDeque<Play>>,
    seen: Mutex<Vec<Value>>,
    at_work: AtomicUsize,
    most_at_work: AtomicUsize,
    /// Requests whose client went away before the reply.
    left: AtomicUsize,
    go: Notify,
}

/// A running double.
pub(crate) struct Double {
    /// `http://127.0.0.1:PORT/v1`
    pub(crate) base: String,
    stage: Arc<Stage>,
}

#[derive(Clone)]
struct House {
    manners: Manners,
    stage: Arc<Stage>,
}

impl Double {
    pub(crate) async fn start(manners: Manners, plays: Vec<Play>) -> Self {
        let stage = Arc::new(Stage { plays: Mutex::new(plays.into()), ..Stage::default() });
        let house = House { manners, stage: stage.clone() };
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(chat))
            .layer(DefaultBodyLimit::max(64 << 20))
            .with_state(house);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, stage }
    }

    /// The bodies of all requests so far, faults included.
    pub(crate) fn seen(&self) -> Vec<Value> {
        self.stage.seen.lock().unwrap().clone()
    }

    pub(crate) fn most_at_work(&self) -> usize {
        self.stage.most_at_work.load(Ordering::SeqCst)
    }

    pub(crate) fn at_work(&self) -> usize {
        self.stage.at_work.load(Ordering::SeqCst)
    }

    pub(crate) fn left(&self) -> usize {
        self.stage.left.load(Ordering::SeqCst)
    }

    /// Lets one held request go on.
    pub(crate) fn let_go(&self) {
        self.stage.go.notify_one();
    }
}

/// Counts a request while it is at work, and whether it was dropped.
struct Place(Arc<Stage>, bool);

impl Place {
    fn take(stage: &Arc<Stage>) -> Self {
        let now = stage.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        stage.most_at_work.fetch_max(now, Ordering::SeqCst);
        Self(stage.clone(), false)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.left.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn error(status: u16, message: &str) -> Response {
    let body = json!({ "error": { "message": message, "type": "invalid_request_error", "code": null } });
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn models(State(house): State<House>, headers: HeaderMap) -> Response {
    if let Err(refused) = key(&house.manners, &headers) {
        return *refused;
    }
    match house.manners.models {
        Ok(list) => Json(list).into_response(),
        Err(status) => error(status, "not here"),
    }
}

fn key(manners: &Manners, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    let wanted = manners.key.map(|key| format!("Bearer {key}"));
    if given == wanted.as_deref() {
        return Ok(());
    }
    // As hosted servers do: what was given is repeated.
    Err(Box::new(error(401, &format!("Incorrect API key provided: {}", given.unwrap_or("none")))))
}

async fn chat(State(house): State<House>, headers: HeaderMap, body: Bytes) -> Response {
    let mut place = Place::take(&house.stage);
    let response = reply(&house, &headers, &body).await;
    place.1 = true;
    response
}

async fn reply(house: &House, headers: &HeaderMap, body: &[u8]) -> Response {
    if let Err(refused) = key(&house.manners, headers) {
        return *refused;
    }
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(cause) => return error(400, &format!("no JSON: {cause}")),
    };
    house.stage.seen.lock().unwrap().push(body.clone());
    if headers.get("content-type").is_none_or(|kind| kind != "application/json") {
        return error(400, "content-type is not application/json");
    }
    if let Err(cause) = check(&body, &house.manners) {
        return error(400, &format!("the double does not understand: {cause}"));
    }
    if body["model"] != house.manners.model {
        return error(404, &format!("The model {} does not exist.", body["model"]));
    }
    let play = house.stage.plays.lock().unwrap().pop_front();
    match play.expect("a play is prepared for every request") {
        Play::Reply(reply) => Json(reply).into_response(),
        Play::Status(status, headers, text) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), text).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Play::Silence => std::future::pending().await,
        Play::Half => {
            let broken = std::io::Error::other("the double goes away");
            let half = futures::stream::iter([Ok(Bytes::from_static(b"{\"choices\": [")), Err(broken)]);
            Body::from_stream(half).into_response()
        }
        Play::Held(reply) => {
            house.stage.go.notified().await;
            Json(reply).into_response()
        }
    }
}

/// The fields of `CreateChatCompletionRequest` that a client of this kind may send, and what they may be.
fn check(body: &Value, manners: &Manners) -> Result<(), String> {
    let fields = body.as_object().ok_or("the body is no object")?;
    for (name, value) in fields {
        let good = match name.as_str() {
            "model" => value.is_string(),
            "messages" => messages_are_good(value)?,
            "temperature" => value.as_f64().is_some_and(|t| (0.0..=2.0).contains(&t)),
            "top_p" => value.as_f64().is_some_and(|p| p > 0.0 && p <= 1.0),
            "seed" => value.is_i64(),
            "max_tokens" | "max_completion_tokens" => value.as_u64().is_some_and(|tokens| tokens > 0),
            "stop" => strings(value).is_some_and(|stops| (1..=4).contains(&stops)),
            "logprobs" => value.is_boolean(),
            "top_logprobs" => {
                value.as_u64().is_some_and(|n| n <= 20) && fields.get("logprobs") == Some(&json!(true))
            }
            own => manners.extra.contains(&own),
        };
        if !good {
            return Err(format!("{name}: {value}"));
        }
    }
    match fields.contains_key("model") && fields.contains_key("messages") {
        true => Ok(()),
        false => Err("model and messages are needed".to_owned()),
    }
}

fn strings(value: &Value) -> Option<usize> {
    let list = value.as_array()?;
    list.iter().all(|text| text.as_str().is_some_and(|text| !text.is_empty())).then_some(list.len())
}

fn messages_are_good(messages: &Value) -> Result<bool, String> {
    let messages = messages.as_array().ok_or("messages is no list")?;
    for message in messages {
        let fields = message.as_object().ok_or("a message is no object")?;
        only(fields, &["role", "content"])?;
        let role = message["role"].as_str().unwrap_or_default();
        match (&message["content"], role) {
            (Value::String(_), "system" | "user" | "assistant") => {}
            (Value::Array(parts), "user") if !parts.is_empty() => parts.iter().try_for_each(part)?,
            (content, role) => return Err(format!("{role} says {content}")),
        }
    }
    Ok(!messages.is_empty())
}

fn part(part: &Value) -> Result<(), String> {
    let fields = part.as_object().ok_or("a part is no object")?;
    match part["type"].as_str() {
        Some("text") => {
            only(fields, &["type", "text"])?;
            part["text"].as_str().map(|_| ()).ok_or_else(|| "text is no text".to_owned())
        }
        Some("image_url") => {
            only(fields, &["type", "image_url"])?;
            only(part["image_url"].as_object().ok_or("image_url is no object")?, &["url", "detail"])?;
            decoded(part["image_url"]["url"].as_str().unwrap_or_default()).map(|_| ())
        }
        kind => Err(format!("part of type {kind:?}")),
    }
}

fn only(fields: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(format!("unknown field {unknown}")),
        None => Ok(()),
    }
}

/// The image of a data URL, which must be of the type that it says.
pub(crate) fn decoded(url: &str) -> Result<image::RgbImage, String> {
    let (kind, encoded) = url
        .strip_prefix("data:")
        .and_then(|url| url.split_once(";base64,"))
        .ok_or_else(|| format!("no data URL: {}", url.chars().take(40).collect::<String>()))?;
    let format = image::ImageFormat::from_mime_type(kind).ok_or_else(|| format!("type {kind}"))?;
    let bytes = STANDARD.decode(encoded).map_err(|cause| cause.to_string())?;
    let image = image::load_from_memory_with_format(&bytes, format).map_err(|cause| cause.to_string())?;
    Ok(image.into_rgb8())
}
