//! Requests that keep to the protocol, and what replies become.

use serde_json::{Value, json};
use spectemp_engine::{Ending, Grammar, Message, Part, Request, Role, Sampling, Score, Vlm};
use spectemp_types::{TokenCounts, TurnFinish};

use crate::{
    double::{Double, Manners, Play, decoded},
    support::{frame, open, request, said},
};

#[tokio::test]
async fn a_conversation_goes_out_and_an_answer_comes_back() {
    let plays = vec![Play::Reply(said("<think>x</think><answer>7")), Play::Reply(said("<answer>8</answer>"))];
    let double = Double::start(Manners::default(), plays).await;
    let vlm = open(&double, "plain", "").await;
    let first = vlm.generate(request()).await.unwrap();
    assert_eq!((first.text.as_str(), first.finish), ("<think>x</think><answer>7</answer>", TurnFinish::Stop));
    // 56 × 28 px are two visual tokens.
    assert_eq!(first.counts, TokenCounts { text: 38, visual: 2, generated: 9, ..TokenCounts::default() });
    assert!(first.times.generate_ms > 0.0 && first.tokens.is_empty() && first.scores.is_none());

    let mut next = request();
    let spoken = Part::Generated { text: first.text, token_ids: vec![1, 2, 3] };
    let again = vec![Part::Text("Again.".to_owned())];
    next.messages.push(Message { role: Role::Assistant, parts: vec![spoken] });
    next.messages.push(Message { role: Role::User, parts: again });
    assert_eq!(vlm.generate(next).await.unwrap().text, "<answer>8</answer>");

    let seen = double.seen();
    let roles = |body: &Value| -> Vec<String> {
        let messages = body["messages"].as_array().unwrap();
        messages.iter().map(|message| message["role"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(roles(&seen[0]), ["system", "user"]);
    assert_eq!(roles(&seen[1]), ["system", "user", "assistant", "user"]);
    assert_eq!(seen[1]["messages"][2]["content"], "<think>x</think><answer>7</answer>");
    assert_eq!(seen[0]["stop"], json!(["</answer>"]));
    assert_eq!(seen[0]["messages"][1]["content"][0]["text"], "1.5s: ");
}

#[tokio::test]
async fn frames_arrive_whole() {
    let plays = vec![Play::Reply(said("<answer>7</answer>")), Play::Reply(said("<answer>7</answer>"))];
    let double = Double::start(Manners::default(), plays).await;
    for query in ["image=png", "quality=80"] {
        open(&double, "plain", query).await.generate(request()).await.unwrap();
    }
    let image = |body: &Value| {
        decoded(body["messages"][1]["content"][1]["image_url"]["url"].as_str().unwrap()).unwrap()
    };
    let (png, jpeg) = (image(&double.seen()[0]), image(&double.seen()[1]));
    assert_eq!((png.width(), png.height(), png.as_raw().as_slice()), (56, 28, &frame().data[..]));
    assert_eq!((jpeg.width(), jpeg.height()), (56, 28));
    assert!(jpeg.as_raw().iter().zip(png.as_raw()).all(|(a, b)| a.abs_diff(*b) < 24));
}

fn spelled(tokens: &[(&str, &[(&str, f64)])]) -> Value {
    let entry = |token: &str, p: f64| json!({ "token": token, "logprob": p.ln(), "bytes": token.as_bytes() });
    let token = |(token, others): &(&str, &[(&str, f64)])| {
        let mut spelled = entry(token, 0.5);
        spelled["top_logprobs"] = others.iter().map(|(token, p)| entry(token, *p)).collect();
        spelled
    };
    json!({ "content": tokens.iter().map(token).collect::<Vec<_>>(), "refusal": null })
}

#[tokio::test]
async fn log_probabilities_become_records_and_scores() {
    let mut reply = said("<answer>B");
    reply["choices"][0]["logprobs"] =
        spelled(&[("<answer>", &[]), ("B", &[("B", 0.5), ("A", 0.25), ("a", 0.1)]), ("</answer>", &[])]);
    let double = Double::start(Manners::default(), vec![Play::Reply(reply)]).await;
    let score = Score { after: "<answer>".to_owned(), candidates: vec!["A".to_owned(), "B".to_owned()] };
    let vlm = open(&double, "plain", "logprobs=3").await;
    let generation = vlm.generate(Request { score: Some(score), ..request() }).await.unwrap();
    assert_eq!(generation.text, "<answer>B</answer>");
    let ends: Vec<_> = generation.tokens.iter().map(|token| (token.id, token.text_end)).collect();
    assert_eq!(ends, [(None, 8), (None, 9), (None, 18)]);
    assert!(generation.tokens.iter().all(|token| (token.logprob - 0.5f64.ln()).abs() < 1e-9));
    assert!(generation.token_ids().is_empty(), "ids are not made up");
    let scores: Vec<f64> = generation.scores.unwrap().into_iter().map(f64::exp).collect();
    assert!((scores[0] - 0.25).abs() < 1e-9 && (scores[1] - 0.5).abs() < 1e-9, "{scores:?}");
    assert_eq!(double.seen()[0]["top_logprobs"], 3);
}

#[tokio::test]
async fn each_server_is_spoken_to_in_its_words() {
    let labels = vec!["3".to_owned(), "4.5".to_owned()];
    let grammar = Grammar { endings: vec![Ending::Frames { labels, most: 2 }] };
    for (kind, extra) in [
        ("vllm", &["structured_outputs", "include_stop_str_in_output"][..]),
        ("sglang", &["regex", "no_stop_trim"]),
        ("llamacpp", &["grammar"]),
        ("mistralrs", &["grammar"]),
        ("transformers", &[]),
        ("plain", &[]),
    ] {
        let manners = Manners { extra, ..Manners::default() };
        let double = Double::start(manners, vec![Play::Reply(said("<answer>7</answer>"))]).await;
        let drawn = Sampling { temperature: 0.8, top_p: 0.9, seed: 1 << 40 };
        let request = Request { grammar: Some(grammar.clone()), sampling: drawn, ..request() };
        let generation = open(&double, kind, "").await.generate(request).await.unwrap();
        assert_eq!(generation.text, "<answer>7</answer>", "{kind}");
        let body = &double.seen()[0];
        assert!(extra.iter().all(|field| body.get(field).is_some()), "{kind}: {body}");
        assert_eq!(body.get("seed").is_some(), kind != "mistralrs", "{kind}");
        assert_eq!(body.get("logprobs").is_some(), kind != "transformers", "{kind}");
    }
}

#[tokio::test]
async fn a_stop_inside_the_thought_is_asked_again_without_stops() {
    let whole = "<think>is it <answer>7</answer>?</think><answer>8</answer> or";
    let plays = vec![Play::Reply(said("<think>is it <answer>7")), Play::Reply(said(whole))];
    let double = Double::start(Manners::default(), plays).await;
    let generation = open(&double, "plain", "").await.generate(request()).await.unwrap();
    assert_eq!(generation.text, "<think>is it <answer>7</answer>?</think><answer>8</answer>");
    let stops: Vec<bool> = double.seen().iter().map(|body| body.get("stop").is_some()).collect();
    assert_eq!(stops, [true, false]);
}

#[tokio::test]
async fn no_more_requests_at_once_than_the_limit() {
    let plays = (0..6).map(|_| Play::Held(said("<answer>7</answer>"))).collect();
    let double = Double::start(Manners::default(), plays).await;
    let vlm = std::sync::Arc::new(open(&double, "plain", "concurrency=2").await);
    let asking: Vec<_> = (0..6)
        .map(|_| {
            let vlm = vlm.clone();
            tokio::spawn(async move { vlm.generate(request()).await })
        })
        .collect();
    let mut done = 0;
    while done < 6 {
        done = asking.iter().filter(|task| task.is_finished()).count();
        if double.at_work() == 2.min(6 - done) {
            double.let_go();
        }
        tokio::task::yield_now().await;
    }
    for task in asking {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!(double.most_at_work(), 2);
}
