//! Generations of the demonstration pair: reuse, seeds, scores, limits, cancellation.

use std::sync::Arc;

use spectemp_engine::{Generation, Message, Part, Role, Sampling, Score, Vlm, VlmError};
use spectemp_model::{DeviceChoice, LoadOptions, ModelFiles, QwenVlm};
use spectemp_types::TurnFinish;

use crate::support::{
    assert_same, assert_tokens, copy, data, demo, endless, image, load, message, options, request, text,
};

/// A question after some frames, as the demonstration's templates put it.
fn question(frames: u32, colour: &str) -> Vec<Message> {
    let mut parts = vec![text("0 ")];
    for frame in 0..frames {
        parts.push(text(&format!("{}", 5 + frame * 10)));
        parts.push(Part::Image(image(56, 56, frame)));
    }
    parts.push(text(&format!("{}\nWhat digit flashes in the {colour} scene?", frames * 10 + 5)));
    vec![message(Role::User, parts)]
}

async fn generate(model: &QwenVlm, messages: Vec<Message>) -> Generation {
    model.generate(request(messages, 48)).await.expect("it answers")
}

#[tokio::test]
async fn what_is_reused_changes_nothing() {
    let model = load(&demo("target"));
    let first = generate(&model, question(10, "red")).await;
    assert_eq!((first.counts.reused, first.counts.visual), (0, 40));
    // Another question about the same frames shares all up to the colour's word.
    let second = generate(&model, question(10, "blue")).await;
    let prompt = second.counts.text + second.counts.visual;
    assert!(second.counts.reused > 75 && second.counts.reused < prompt, "{:?}", second.counts);
    assert_same(&second, &generate(&load(&demo("target")), question(10, "blue")).await);
    // The same question again: only its last token is computed.
    let again = generate(&model, question(10, "red")).await;
    assert_eq!(again.counts.reused, prompt - 1);
    assert_eq!(again.times.vision_ms.round(), 0.0);
    assert_same(&again, &first);
}

#[tokio::test]
async fn an_appended_turn_prefills_only_what_is_new() {
    let model = load(&demo("target"));
    let first = generate(&model, question(6, "green")).await;
    let mut messages = question(6, "green");
    let token_ids = first.token_ids();
    messages.push(message(Role::Assistant, vec![Part::Generated { text: first.text.clone(), token_ids }]));
    let frame = |seed: u32| Part::Image(image(56, 56, 100 + seed));
    messages
        .push(message(Role::User, vec![text("30"), frame(0), text("31"), frame(1), text("\nAnswer now.")]));
    let second = generate(&model, messages.clone()).await;
    // The end token's logits needed the last generated token's KV.
    assert_eq!(first.finish, TurnFinish::EndOfTurn);
    let had = first.counts.text + first.counts.visual + first.tokens.len() as u64;
    assert_eq!(second.counts.reused, had);
    assert_same(&second, &generate(&load(&demo("target")), messages).await);
}

#[tokio::test]
async fn small_chunks_and_no_caches_give_the_same() {
    let reference = generate(&load(&demo("target")), question(12, "cyan")).await;
    let files = ModelFiles::folder(demo("target"));
    for (prefill_chunk, bytes) in [(1, 0), (7, 0), (64, 4096)] {
        let options =
            LoadOptions { prefill_chunk, prefix_cache_bytes: bytes, vision_cache_bytes: bytes, ..options() };
        let model = QwenVlm::load(&files, &options).expect("loads");
        for _ in 0..2 {
            let generation = generate(&model, question(12, "cyan")).await;
            assert_same(&generation, &reference);
            assert!(bytes > 0 || generation.counts.reused == 0);
        }
    }
}

#[tokio::test]
async fn sampling_repeats_itself_by_seed_and_ignores_stock_settings_when_greedy() {
    let folder = copy(&data("untied/model"));
    let stock = r#"{"do_sample":true,"temperature":1.9,"top_p":0.5,"top_k":3,"repetition_penalty":1.5,"eos_token_id":[411,409]}"#;
    let plain = load(folder.path());
    let greedy = generate(&plain, question(2, "red")).await;
    std::fs::write(folder.path().join("generation_config.json"), stock).expect("writable");
    let stocked = load(folder.path());
    let again = generate(&stocked, question(2, "red")).await;
    let prefix = again.tokens.len().min(greedy.tokens.len());
    assert!(prefix > 0);
    assert_eq!(again.tokens[..prefix], greedy.tokens[..prefix]);
    let mut texts = Vec::new();
    for seed in [1, 1, 2, 3] {
        let mut request = request(question(2, "red"), 24);
        request.sampling = Sampling { temperature: 1.2, top_p: 0.95, seed };
        texts.push(stocked.generate(request).await.expect("it answers"));
    }
    let ids = Generation::token_ids;
    assert_eq!(ids(&texts[0]), ids(&texts[1]));
    assert!(ids(&texts[0]) != ids(&texts[2]) || ids(&texts[0]) != ids(&texts[3]));
    assert!(texts[0].tokens.iter().all(|token| token.logprob < 0.0));
}

#[tokio::test]
async fn end_tokens_come_from_the_generation_config_as_number_or_list() {
    let folder = endless();
    let free = generate(&load(folder.path()), question(1, "red")).await;
    let stop = free.tokens[3].id.expect("it is known");
    let until = free.tokens.iter().position(|token| token.id == Some(stop)).expect("it is there");
    for spelled in [format!("{stop}"), format!("[9999,{stop}]")] {
        let config = format!(r#"{{"eos_token_id":{spelled}}}"#);
        std::fs::write(folder.path().join("generation_config.json"), config).expect("writable");
        let ended = generate(&load(folder.path()), question(1, "red")).await;
        assert_eq!(ended.finish, TurnFinish::EndOfTurn);
        // Not the lengths: bytes that never became a character are shown at the end.
        let drawn = |g: &Generation| {
            g.tokens[..until].iter().map(|t| (t.id, t.logprob.to_bits())).collect::<Vec<_>>()
        };
        assert_eq!(ended.tokens.len(), until);
        assert_eq!(drawn(&ended), drawn(&free));
        assert_eq!(ended.counts.generated, until as u64 + 1);
    }
}

/// The score of a candidate is the log-probability that generating it would have had.
#[tokio::test]
async fn scores_are_log_probabilities_of_continuations() {
    let model = load(&demo("target"));
    let plain = generate(&model, question(5, "gray")).await;
    assert!(plain.text.len() > 8 && plain.tokens.len() > 6, "{}", plain.text);
    // What it wrote after its fourth token, of one token and of three.
    let at = |token: usize| plain.tokens[token].text_end;
    let after = plain.text[..at(3)].to_owned();
    let (one, three) = (plain.text[at(3)..at(4)].to_owned(), plain.text[at(3)..at(6)].to_owned());
    let mut scored = request(question(5, "gray"), 48);
    scored.score = Some(Score { after, candidates: vec![one, three, " zebra".to_owned()] });
    let generation = model.generate(scored.clone()).await.expect("it answers");
    assert_tokens(&generation.tokens, &plain.tokens, &plain.text);
    assert_eq!((&generation.text, generation.finish), (&plain.text, plain.finish));
    let scores = generation.scores.expect("scores were asked for");
    assert!((scores[0] - plain.tokens[4].logprob).abs() < 1e-4, "{scores:?}");
    let sum: f64 = plain.tokens[4..7].iter().map(|token| token.logprob).sum();
    assert!((scores[1] - sum).abs() < 1e-3, "{scores:?} {sum}");
    assert!(scores[2] < scores[0]);
    // The same on a model that has nothing cached, and after the cache was cut by scoring.
    let fresh = load(&demo("target")).generate(scored.clone()).await.expect("it answers");
    let again = model.generate(scored).await.expect("it answers");
    for other in [fresh, again] {
        for (a, b) in other.scores.expect("scores").iter().zip(&scores) {
            assert!((a - b).abs() < 1e-4);
        }
    }
}

#[tokio::test]
async fn candidates_after_a_text_that_never_came_follow_the_whole_output() {
    let model = load(&demo("target"));
    let mut scored = request(question(3, "red"), 2);
    scored.score =
        Some(Score { after: "<answer>".to_owned(), candidates: vec!["7".to_owned(), "3".to_owned()] });
    let generation = model.generate(scored).await.expect("it answers");
    assert_eq!(generation.finish, TurnFinish::Length);
    let scores = generation.scores.clone().expect("scores");
    assert!(scores.iter().all(|score| score.is_finite() && *score < 0.0));
    // By hand: the output and the tag as if generated, then one token each.
    let mut messages = question(3, "red");
    let mut token_ids = generation.token_ids();
    let tokenizer = spectemp_model::Tokenizer::open(&ModelFiles::folder(demo("target"))).expect("opens");
    token_ids.extend(tokenizer.encode("<answer>").expect("ids"));
    let seven = tokenizer.encode("7").expect("ids");
    assert_eq!(seven.len(), 1);
    // A template that ends in the generated part lets the model go on right there.
    let folder = copy(&demo("target"));
    let template = "{% for m in messages %}{% if m.role == 'assistant' %}{{ '\\n<|im_start|>assistant\\n' ~ m.content }}\
        {% else %}<|im_start|>user\n{% for c in m.content %}{{ '<|vision_start|><|image_pad|><|vision_end|>' if c.type == 'image' else c.text }}{% endfor %}<|im_end|>{% endif %}{% endfor %}";
    std::fs::write(folder.path().join("chat_template.jinja"), template).expect("writable");
    messages.push(message(Role::Assistant, vec![Part::Generated { text: String::new(), token_ids }]));
    let mut drawn = request(messages, 1);
    drawn.score = Some(Score { after: String::new(), candidates: vec!["7".to_owned(), "3".to_owned()] });
    let by_hand = load(folder.path()).generate(drawn).await.expect("it answers").scores.expect("scores");
    for (a, b) in by_hand.iter().zip(&scores) {
        assert!((a - b).abs() < 1e-4, "{by_hand:?} {scores:?}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_numbers() {
    let model = load(&data("untied/model"));
    let long = "word ".repeat(4000);
    let error = model
        .generate(request(vec![message(Role::User, vec![text(&long)])], 100))
        .await
        .expect_err("too long");
    match error {
        VlmError::TooLong { tokens, max_new, limit } => {
            assert!(tokens > 4000);
            assert_eq!((max_new, limit), (100, 4096));
        }
        other => panic!("{other}"),
    }
    let wrong = vec![message(Role::User, vec![text("<|image_pad|>")])];
    assert!(matches!(model.generate(request(wrong, 1)).await, Err(VlmError::Request(_))));
    // The thread lives on.
    assert_eq!(generate(&model, question(1, "red")).await.counts.visual, 4);
}

#[tokio::test]
async fn cancelled_and_abandoned_calls_end_and_leave_the_model_free() {
    let folder = endless();
    let model = Arc::new(load(folder.path()));
    let cancelled = request(question(1, "red"), 4000);
    let token = cancelled.cancel.clone();
    let running = tokio::spawn({
        let model = Arc::clone(&model);
        async move { model.generate(cancelled).await }
    });
    // Abandoned while it waits behind the first.
    let waiting = model.generate(request(question(2, "red"), 4000));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), waiting).await.is_err());
    token.cancel();
    assert!(matches!(running.await.expect("no panic"), Err(VlmError::Cancelled)));
    let next =
        tokio::time::timeout(std::time::Duration::from_secs(20), generate(&model, question(3, "red"))).await;
    assert!(next.is_ok(), "the model is not free");
}

#[test]
fn the_card_says_what_the_model_is() {
    let folder = copy(&demo("draft"));
    std::fs::create_dir(folder.path().join("prompts")).expect("writable");
    std::fs::write(folder.path().join("prompts/draft.jinja"), "draft {{ x }}").expect("writable");
    let files = ModelFiles::folder(folder.path()).with_name("pair/draft");
    let model = QwenVlm::load(&files, &options()).expect("loads");
    let card = model.card().clone();
    assert_eq!(card.revision.name, "pair/draft");
    assert_eq!(card.revision.revision.len(), 16);
    assert_eq!(card.templates.draft.as_deref(), Some("draft {{ x }}"));
    assert_eq!(card.templates.target, None);
    assert_eq!((card.pixels.min_pixels, card.pixels.max_pixels, card.pixels.multiple), (784, 784, 28));
    assert_eq!(card.context_tokens, 32_768);
    // Other weights, other revision.
    let weights = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("readable");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).expect("writable");
    let other = QwenVlm::load(&files, &options()).expect("loads");
    assert_ne!(other.card().revision.revision, card.revision.revision);
}

#[test]
fn a_gpu_that_this_build_has_not_is_refused() {
    if cfg!(feature = "cuda") {
        return;
    }
    let options = LoadOptions { device: DeviceChoice::Cuda(0), ..options() };
    let error =
        QwenVlm::load(&ModelFiles::folder(demo("draft")), &options).expect_err("no GPU here").to_string();
    assert!(error.contains("cuda:0") && error.contains("--features cuda"), "{error}");
    assert!("tpu".parse::<DeviceChoice>().is_err());
    assert_eq!("cuda:2".parse::<DeviceChoice>().expect("a device"), DeviceChoice::Cuda(2));
}
