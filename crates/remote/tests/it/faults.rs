//! Everything that may go wrong, and what is said of it.

use serde_json::json;
use spectemp_engine::{Vlm, VlmError};

use crate::{
    double::{Double, Manners, Play},
    support::{open, request, said},
};

fn status(status: u16, message: &str) -> Play {
    let body = json!({ "error": { "message": message, "type": "server_error", "code": null } });
    Play::Status(status, vec![("retry-after", "0".to_owned())], body.to_string())
}

/// What a model says after these plays, and how often the double was asked.
async fn said_after(plays: Vec<Play>, query: &str) -> (Result<String, VlmError>, usize) {
    let double = Double::start(Manners::default(), plays).await;
    let generation = open(&double, "plain", query).await.generate(request()).await;
    let base = &double.base;
    if let Err(error @ (VlmError::Backend(_) | VlmError::Refused(_))) = &generation {
        let text = error.to_string();
        assert!(text.contains(&format!("{base} (model qwen): ")), "server and model are named: {text}");
    }
    (generation.map(|generation| generation.text), double.seen().len())
}

#[tokio::test]
async fn passing_faults_are_tried_again() {
    let good = || Play::Reply(said("<answer>7</answer>"));
    for plays in [
        vec![status(429, "slow down"), good()],
        vec![status(503, "loading"), status(500, "oops"), good()],
        vec![status(502, ""), status(504, ""), good()],
        vec![Play::Half, good()],
    ] {
        let tries = plays.len();
        let (text, asked) = said_after(plays, "").await;
        assert_eq!((text.unwrap().as_str(), asked), ("<answer>7</answer>", tries));
    }
}

#[tokio::test]
async fn after_the_last_try_the_fault_is_told_as_passing() {
    let plays = vec![status(500, "CUDA out of memory"), status(500, "CUDA out of memory")];
    let (error, asked) = said_after(plays, "retries=1").await;
    let Err(VlmError::Backend(text)) = error else { panic!("{error:?}") };
    assert!(text.contains("500: CUDA out of memory") && text.ends_with("tries: 2"), "{text}");
    assert_eq!(asked, 2);

    let (error, _) = said_after(vec![Play::Half], "retries=0").await;
    assert!(
        matches!(&error, Err(VlmError::Backend(text)) if text.contains("the connection broke")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_wants_to_be_left_alone_for_long_is_not_waited_for() {
    let long = Play::Status(429, vec![("retry-after", "3600".to_owned())], "{}".to_owned());
    let (error, asked) = said_after(vec![long], "").await;
    assert!(
        matches!(&error, Err(VlmError::Backend(text)) if text.contains("left alone for 3600 s")),
        "{error:?}"
    );
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn final_faults_are_told_with_what_to_do() {
    let too_long = "This model's maximum context length is 4096 tokens.";
    for (play, told) in [
        (status(401, "no"), "it wants a key: set SPECTEMP_TARGET_API_KEY"),
        (status(403, "not for you"), "it wants a key"),
        (status(404, "The model `qwen` does not exist."), "check the address"),
        (status(413, ""), "fewer or smaller frames"),
        (status(400, too_long), "lower the frames or pixels"),
        (status(400, "top_logprobs must be at most 5"), "logprobs=off"),
        (status(422, "Unexpected fields"), "Unexpected fields"),
        (status(429, "You exceeded your current quota"), "exceeded your current quota"),
        (status(501, "not implemented"), "not implemented"),
        (
            Play::Status(307, vec![("location", "https://elsewhere/v1".to_owned())], String::new()),
            "https://elsewhere/v1",
        ),
    ] {
        let (error, asked) = said_after(vec![play], "").await;
        assert!(matches!(&error, Err(VlmError::Refused(text)) if text.contains(told)), "{told}: {error:?}");
        assert_eq!(asked, 1, "{told}");
    }
}

#[tokio::test]
async fn replies_that_are_none_are_told() {
    let refusal = json!({ "choices": [
        { "message": { "content": null, "refusal": "I cannot help" }, "finish_reason": "stop" },
    ]});
    let filtered =
        json!({ "choices": [{ "message": { "content": "" }, "finish_reason": "content_filter" }] });
    let html = Play::Status(200, vec![], "<html>It works!</html>".to_owned());
    for (play, told, passing) in [
        (html, "cannot be used: expected value", true),
        (Play::Reply(json!({ "object": "chat.completion" })), "missing field `choices`", true),
        (Play::Reply(json!({ "choices": [] })), "it holds no choices", true),
        (Play::Reply(refusal), "I cannot help", false),
        (Play::Reply(filtered), "content filter", false),
    ] {
        let (error, asked) = said_after(vec![play], "").await;
        let error = error.unwrap_err();
        assert_eq!(matches!(error, VlmError::Backend(_)), passing, "{error:?}");
        assert!(error.to_string().contains(told), "{told}: {error}");
        assert_eq!(asked, 1);
    }
}

#[tokio::test]
async fn a_body_without_end_is_not_read_to_the_end() {
    let huge = Play::Status(200, vec![], " ".repeat(33 << 20));
    let (error, _) = said_after(vec![huge], "").await;
    assert!(matches!(&error, Err(VlmError::Refused(text)) if text.contains("over 32 MiB")), "{error:?}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_after_the_limit() {
    let (error, asked) = said_after(vec![Play::Silence], "timeout_s=1").await;
    let Err(VlmError::Backend(text)) = error else { panic!("{error:?}") };
    assert!(text.contains("no answer within 1 s") && text.contains("timeout_s"), "{text}");
    assert_eq!(asked, 1, "an overloaded server is not asked twice at once");
}

#[tokio::test]
async fn cancelling_ends_the_request_at_the_server() {
    let double = Double::start(Manners::default(), vec![Play::Silence]).await;
    let vlm = open(&double, "plain", "").await;
    let request = request();
    let cancel = request.cancel.clone();
    let asking = tokio::spawn(async move { vlm.generate(request).await });
    while double.at_work() == 0 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert!(matches!(asking.await.unwrap(), Err(VlmError::Cancelled)));
    while double.left() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((double.left(), double.at_work()), (1, 0));
}

#[tokio::test]
async fn a_cancelled_request_is_not_sent() {
    let double = Double::start(Manners::default(), vec![]).await;
    let request = request();
    request.cancel.cancel();
    let error = open(&double, "plain", "").await.generate(request).await;
    assert!(matches!(error, Err(VlmError::Cancelled)), "{error:?}");
    assert!(double.seen().is_empty());
}

#[tokio::test]
async fn a_model_that_the_server_does_not_know_is_named() {
    let manners = Manners { model: "other", models: Err(404), ..Manners::default() };
    let double = Double::start(manners, vec![]).await;
    let error = open(&double, "plain", "").await.generate(request()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, VlmError::Refused(_)) && text.contains("\"qwen\" does not exist"), "{text}");
    assert!(text.contains("the model stands after #"), "{text}");
}
