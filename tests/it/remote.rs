//! Target and draft on a server: the demonstration pair behind the published protocol gives the answers that it gives in
//! the program itself.

use std::sync::Arc;

use axum::{Json, Router, extract::DefaultBodyLimit, extract::State, routing::get, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use spectemp_engine::{Generation, Message, Part, Request, RgbImage, Role, Sampling, Vlm};
use spectemp_model::{LoadOptions, ModelFiles, QwenVlm};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::sync::CancellationToken;

use crate::support::{Done, Place, jobs, model, pair, with_pair};

/// A server of one model of the pair; its base URL.
async fn serve(role: &str) -> String {
    let files = ModelFiles::folder(model(role));
    let vlm = Arc::new(QwenVlm::load(&files, &LoadOptions::default()).unwrap());
    let list = json!({ "object": "list", "data": [{ "id": role, "object": "model", "owned_by": "vllm" }] });
    let router = Router::new()
        .route("/v1/models", get(move || async move { Json(list) }))
        .route("/v1/chat/completions", post(chat))
        .layer(DefaultBodyLimit::max(64 << 20))
        .with_state(vlm);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    base
}

async fn chat(State(vlm): State<Arc<QwenVlm>>, Json(body): Json<Value>) -> Json<Value> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let generation = vlm
        .generate(Request {
            messages: body["messages"].as_array().unwrap().iter().map(message).collect(),
            sampling: Sampling { temperature: body["temperature"].as_f64().unwrap(), top_p: 1.0, seed: 0 },
            max_new_tokens: body["max_tokens"].as_u64().unwrap() as u32,
            grammar: None,
            think_tokens: u32::MAX,
            stops: texts(&body["stop"]),
            score: None,
            cancel: CancellationToken::new(),
        })
        .await
        .unwrap();
    Json(reply(&generation))
}

fn message(message: &Value) -> Message {
    let role = match message["role"].as_str().unwrap() {
        "system" => Role::System,
        "user" => Role::User,
        _ => Role::Assistant,
    };
    let parts = match &message["content"] {
        Value::String(text) => vec![Part::Text(text.clone())],
        parts => parts.as_array().unwrap().iter().map(part).collect(),
    };
    Message { role, parts }
}

fn part(part: &Value) -> Part {
    let Some(url) = part["image_url"]["url"].as_str() else {
        return Part::Text(part["text"].as_str().unwrap().to_owned());
    };
    let bytes = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut data).unwrap();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    Part::Image(RgbImage { width: info.width, height: info.height, data: data.into() })
}

fn reply(generation: &Generation) -> Value {
    let mut start = 0;
    let mut token = |end: usize, logprob: f64| {
        let text = &generation.text[start..end];
        start = end;
        json!({ "token": text, "bytes": text.as_bytes(), "logprob": logprob, "top_logprobs": [] })
    };
    let tokens: Vec<Value> =
        generation.tokens.iter().map(|record| token(record.text_end, record.logprob)).collect();
    let counts = generation.counts;
    json!({
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": generation.text },
            "logprobs": { "content": tokens },
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": counts.text + counts.visual,
            "completion_tokens": counts.generated,
            "prompt_tokens_details": { "cached_tokens": counts.reused },
        },
    })
}

/// What of an answer must be the same wherever the models run.
fn said(answers: &[Value]) -> Vec<(Value, Value, Value)> {
    answers
        .iter()
        .map(|answer| (answer["id"].clone(), answer["answer"].clone(), answer["evidence"].clone()))
        .collect()
}

#[test]
fn a_pair_on_servers_answers_as_it_does_in_the_program() {
    let runtime = Runtime::new().unwrap();
    let (target, draft) = runtime.block_on(async { (serve("target").await, serve("draft").await) });
    let place = Place::new();
    let videos = place.videos(&[64, 300], 2);
    let file = place.write_jobs("jobs.jsonl", &jobs(&videos));
    let pair = pair();
    let here = place.run(&with_pair(&["run", &file, "--results", "here"], &pair));
    assert_eq!(here.code, Some(0), "{}", here.stderr);

    let address = |role: &str, base: &str| {
        let prompts = format!("{}/prompts", model(role));
        format!("openai+{base}?image=png&min_pixels=784&prompts={prompts}#{role}")
    };
    let (target, draft) = (address("target", &target), address("draft", &draft));
    let local = model("draft");
    for draft in [draft.as_str(), local.as_str()] {
        let elsewhere = Place::new();
        let args =
            ["run", &file, "--results", "there", "--plan", "demo", "--target", &target, "--draft", draft];
        let mut command = elsewhere.command(&args);
        command.env("SPECTEMP_TARGET_API_KEY", "sk-not-shown");
        let done = Done::of(command.output().unwrap());
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(!done.stderr.contains("sk-not-shown"), "{}", done.stderr);
        let (here, there) =
            (place.results("here", "answers.jsonl"), elsewhere.results("there", "answers.jsonl"));
        assert_eq!(said(&there), said(&here), "draft {draft}");
        for (here, there) in here.iter().zip(&there) {
            let confidence = |answer: &Value| answer["confidence"].as_f64().unwrap();
            assert!((confidence(here) - confidence(there)).abs() < 1e-3, "{here} {there}");
            assert_eq!(here["totals"]["rounds"], there["totals"]["rounds"]);
        }
    }
}

#[test]
fn a_server_that_cannot_be_used_is_told_before_anything_is_begun() {
    let place = Place::new();
    for (target, code, told) in [
        ("vlm+http://h/v1#m", 2, "KIND+http://HOST:PORT/v1#MODEL"),
        ("vllm+http://me:secret@h/v1#m", 2, "SPECTEMP_TARGET_API_KEY"),
        ("vllm+http://127.0.0.1:9/v1?retries=0#m", 1, "cannot be reached"),
    ] {
        let done = place.run(&["ask", "v.mp4", "Q?", "--target", target, "--set", "strategy=uniform"]);
        assert_eq!(done.code, Some(code), "{target}: {}", done.stderr);
        assert!(done.stderr.contains(told) && !done.stderr.contains("secret"), "{target}: {}", done.stderr);
    }
    let done = place.run(&["model", "pull", "vllm+http://h/v1#m"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("no files here to pull"), "{}", done.stderr);
}

#[test]
fn keys_are_settings_that_are_not_shown() {
    let place = Place::new();
    let mut command = place.command(&["config", "show"]);
    command.env("SPECTEMP_DRAFT_API_KEY", "sk-not-shown");
    let done = Done::of(command.output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stdout.contains("(not shown)") && !done.stdout.contains("sk-not-shown"), "{}", done.stdout);
}
