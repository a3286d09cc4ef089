//! Many requests at once: the same tokens as alone, prompts that begin alike computed once, memory that is known in
//! advance, and nobody who suffers for another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use spectemp_engine::{Generation, Message, Part, Request, Role, Sampling, Score, Vlm, VlmError};
use spectemp_model::{DeviceThread, EmbeddingTier, LoadOptions, ModelFiles, QwenVlm};

use crate::support::{assert_same, copy, data, demo, endless, image, load, message, options, request, text};

/// A question about frames `first..first + count`.
fn question(first: u32, count: u32, colour: &str) -> Vec<Message> {
    let mut parts = vec![text("0 ")];
    for frame in first..first + count {
        parts.push(text(&format!("{}", 5 + frame * 10)));
        parts.push(Part::Image(image(56, 56, frame)));
    }
    parts.push(text(&format!("\nWhat digit flashes in the {colour} scene?")));
    vec![message(Role::User, parts)]
}

fn prompt(generation: &Generation) -> u64 {
    generation.counts.text + generation.counts.visual
}

/// Requests of many lengths and kinds; no two begin with the same frames.
fn mixed() -> Vec<Request> {
    let colours = ["red", "blue", "green", "cyan", "gray"];
    (0..10)
        .map(|n: u32| {
            let frames = [1, 12, 3, 7, 20, 0, 5, 2, 9, 4][n as usize];
            let mut request = request(question(n * 40, frames, colours[n as usize % 5]), 1 + n * 5);
            if n % 3 == 1 {
                request.sampling = Sampling { temperature: 0.9, top_p: 0.9, seed: u64::from(n) };
            }
            if n % 4 == 2 {
                let candidates = ["7", "3", " zebra crossing"].map(str::to_owned).into();
                request.score = Some(Score { after: "<answer>".to_owned(), candidates });
            }
            request
        })
        .collect()
}

/// As above, where nothing is left for a later request.
fn without_reuse() -> LoadOptions {
    LoadOptions { prefix_cache_bytes: 0, vision_cache_bytes: 0, ..options() }
}

fn on(thread: &Arc<DeviceThread>, which: &str, options: &LoadOptions) -> QwenVlm {
    QwenVlm::load_on(thread, &ModelFiles::folder(demo(which)), options).expect("loads")
}

async fn all(model: &QwenVlm, requests: Vec<Request>) -> Vec<Generation> {
    let results = join_all(requests.into_iter().map(|request| model.generate(request))).await;
    results.into_iter().map(|result| result.expect("it answers")).collect()
}

#[tokio::test]
async fn a_batch_of_mixed_lengths_gives_what_each_gives_alone() {
    let alone = {
        let model = QwenVlm::load(&ModelFiles::folder(demo("target")), &without_reuse()).expect("loads");
        let mut alone = Vec::new();
        for request in mixed() {
            alone.push(model.generate(request).await.expect("it answers"));
        }
        alone
    };
    for prefill_chunk in [16, 512] {
        let options = LoadOptions { prefill_chunk, ..options() };
        let model = QwenVlm::load(&ModelFiles::folder(demo("target")), &options).expect("loads");
        for (together, alone) in all(&model, mixed()).await.iter().zip(&alone) {
            assert_same(together, alone);
        }
    }
}

#[tokio::test]
async fn target_and_draft_share_a_thread() {
    let thread = DeviceThread::start(&options(), None).expect("starts");
    let (target, draft) = (on(&thread, "target", &options()), on(&thread, "draft", &options()));
    let (targets, drafts) = tokio::join!(all(&target, mixed()), all(&draft, mixed()));
    for (which, together) in [("target", targets), ("draft", drafts)] {
        let model = load(&demo(which));
        for (request, together) in mixed().into_iter().zip(together) {
            assert_same(&model.generate(request).await.expect("it answers"), &together);
        }
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_loaded_twice_is_held_once() {
    let thread = DeviceThread::start(&options(), None).expect("starts");
    let [first, second] = [(); 2].map(|()| on(&thread, "target", &options()));
    let a = first.generate(request(question(0, 6, "red"), 24)).await.expect("it answers");
    drop(first);
    // What the one has computed serves the other: they are the same model.
    let b = second.generate(request(question(0, 6, "red"), 24)).await.expect("it answers");
    assert_eq!(b.counts.reused, prompt(&a) - 1);
    assert_same(&a, &b);
    drop(second);
    let third = on(&thread, "target", &options());
    let c = third.generate(request(question(0, 6, "red"), 24)).await.expect("it answers");
    assert_eq!(c.counts.reused, 0, "the last handle took the model along");
    assert_same(&a, &c);
}

#[tokio::test]
async fn prompts_that_begin_alike_at_the_same_time_are_computed_once() {
    let colours = ["red", "blue", "green", "cyan"];
    let requests = || colours.map(|colour| request(question(0, 20, colour), 24)).into();
    let fresh = QwenVlm::load(&ModelFiles::folder(demo("target")), &without_reuse()).expect("loads");
    let model = QwenVlm::load(
        &ModelFiles::folder(demo("target")),
        &LoadOptions { prefill_chunk: 32, prefix_cache_bytes: 0, vision_cache_bytes: 0, ..options() },
    )
    .expect("loads");
    let together = all(&model, requests()).await;
    let computed: Vec<u64> = together.iter().map(|one| prompt(one) - one.counts.reused).collect();
    let whole = computed.iter().max().copied().expect("four");
    assert_eq!(whole, prompt(&together[0]), "one computes all, {computed:?}");
    let others: u64 = computed.iter().sum::<u64>() - whole;
    // The colour and what follows it.
    assert!(others <= 3 * 24, "{computed:?}");
    let alone = join_all(requests().into_iter().map(|request: Request| fresh.generate(request))).await;
    for (together, alone) in together.iter().zip(alone) {
        assert_same(together, &alone.expect("it answers"));
    }
}

#[tokio::test]
async fn a_second_question_on_a_video_needs_no_vision_and_little_prefill() {
    let model = load(&demo("target"));
    let first = model.generate(request(question(0, 20, "red"), 24)).await.expect("it answers");
    let second = model.generate(request(question(0, 20, "blue"), 24)).await.expect("it answers");
    assert_eq!(first.counts.reused, 0);
    assert!(second.counts.reused > second.counts.visual, "all frames lie in what is reused");
    let computed = prompt(&second) - second.counts.reused;
    assert!(4 * computed <= prompt(&first), "{computed} of {}", prompt(&first));
}

/// Bytes of keys and values of one block of tokens of the demonstration's target.
async fn block(thread: &Arc<DeviceThread>) -> usize {
    let model = on(thread, "target", &options());
    model.generate(request(question(0, 1, "red"), 4)).await.expect("it answers");
    thread.kv_bytes()
}

#[tokio::test]
async fn a_tiny_budget_is_kept_and_changes_no_answer() {
    let roomy = DeviceThread::start(&options(), None).expect("starts");
    let block = block(&roomy).await;
    assert!(block > 0);
    // Two blocks: two requests at a time, and what is kept must leave.
    let tight = LoadOptions { kv_cache_bytes: Some(2 * block), ..options() };
    let thread = DeviceThread::start(&tight, None).expect("starts");
    let model = Arc::new(on(&thread, "target", &tight));
    let working = {
        let model = Arc::clone(&model);
        tokio::spawn(async move { all(&model, mixed()).await })
    };
    let mut most = 0;
    while !working.is_finished() {
        most = most.max(thread.kv_bytes());
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    assert!(most > 0 && most <= 2 * block, "{most} of {}", 2 * block);
    let reference = load(&demo("target"));
    for (request, under_pressure) in mixed().into_iter().zip(working.await.expect("no panic")) {
        assert_same(&under_pressure, &reference.generate(request).await.expect("it answers"));
    }
    // One that needs all that there is begins anew where a fork of a kept one would not leave it enough.
    let mut whole = request(question(0, 20, "red"), 1);
    let kept = model.generate(whole.clone()).await.expect("it answers");
    whole.max_new_tokens = (512 - prompt(&kept)) as u32;
    model.generate(whole).await.expect("it answers");
    // What can never fit is told so, with the numbers.
    let error = model.generate(request(question(0, 20, "red"), 1000)).await.expect_err("too large");
    let (VlmError::Request(text), mib) = (&error, (2 * block) >> 20) else { panic!("{error}") };
    assert!(text.contains("--kv-cache") && text.contains(&format!("and {mib} MiB are set apart")), "{text}");
}

#[tokio::test]
async fn what_is_kept_stays_within_its_share() {
    let roomy = DeviceThread::start(&options(), None).expect("starts");
    let block = block(&roomy).await;
    let few = LoadOptions { prefix_cache_bytes: 3 * block, ..options() };
    let thread = DeviceThread::start(&few, None).expect("starts");
    let model = on(&thread, "target", &few);
    for n in 0..6 {
        model.generate(request(question(n * 10, 2, "red"), 4)).await.expect("it answers");
        assert_eq!(thread.kv_bytes(), block * 3.min(n as usize + 1));
    }
    // The newest are there, the oldest are not.
    let newest = model.generate(request(question(50, 2, "red"), 4)).await.expect("it answers");
    assert_eq!(newest.counts.reused, prompt(&newest) - 1);
    let oldest = model.generate(request(question(0, 2, "red"), 4)).await.expect("it answers");
    assert!(oldest.counts.reused < 16, "{:?}", oldest.counts);
}

#[tokio::test]
async fn cancellation_in_the_middle_frees_memory_and_disturbs_nobody() {
    let folder = endless();
    let options = LoadOptions { prefix_cache_bytes: 0, ..options() };
    let thread = DeviceThread::start(&options, None).expect("starts");
    let model = QwenVlm::load_on(&thread, &ModelFiles::folder(folder.path()), &options).expect("loads");
    let model = Arc::new(model);
    let spawn = |request: Request| {
        let model = Arc::clone(&model);
        tokio::spawn(async move { model.generate(request).await })
    };
    let cancelled = request(question(0, 2, "red"), 3900);
    let token = cancelled.cancel.clone();
    let running = spawn(cancelled);
    let other = spawn(request(question(7, 3, "blue"), 300));
    while thread.kv_bytes() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    token.cancel();
    assert!(matches!(running.await.expect("no panic"), Err(VlmError::Cancelled)));
    let other = other.await.expect("no panic").expect("it answers");
    assert_eq!(other.tokens.len(), 300);
    let alone = load(folder.path()).generate(request(question(7, 3, "blue"), 300)).await;
    assert_same(&other, &alone.expect("it answers"));
    // The last thing that the thread does in a step: soon after the answer nothing is held.
    let freed = async {
        while thread.kv_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("all memory is free");
}

#[tokio::test]
async fn a_short_request_overtakes_a_long_prompt() {
    let options = LoadOptions { prefill_chunk: 16, ..options() };
    let model = Arc::new(QwenVlm::load(&ModelFiles::folder(data("untied/model")), &options).expect("loads"));
    let ended = Arc::new(Mutex::new(Vec::new()));
    let spawn = |name: &'static str, request: Request| {
        let (model, ended) = (Arc::clone(&model), Arc::clone(&ended));
        tokio::spawn(async move {
            model.generate(request).await.expect("it answers");
            ended.lock().expect("no panic").push(name);
        })
    };
    // Two hundred chunks against some ten steps.
    let long = "word ".repeat(700);
    let long = spawn("long", request(vec![message(Role::User, vec![text(&long)])], 4));
    tokio::task::yield_now().await;
    let short = spawn("short", request(question(3, 1, "red"), 6));
    long.await.expect("no panic");
    short.await.expect("no panic");
    assert_eq!(*ended.lock().expect("no panic"), ["short", "long"]);
}

/// Embeddings in memory; counts what it was asked.
#[derive(Debug, Default)]
struct Shelf {
    kept: Mutex<HashMap<String, Vec<u8>>>,
    found: Mutex<usize>,
    panics: bool,
}

impl EmbeddingTier for Shelf {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        assert!(!self.panics, "a tier with a bug");
        let kept = self.kept.lock().expect("no panic").get(key).cloned();
        *self.found.lock().expect("no panic") += usize::from(kept.is_some());
        kept
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        self.kept.lock().expect("no panic").insert(key.to_owned(), bytes.to_vec());
    }
}

#[tokio::test]
async fn embeddings_of_an_earlier_process_are_used_unless_they_are_damaged() {
    let shelf = Arc::new(Shelf::default());
    let start = |which: &str| {
        let thread = DeviceThread::start(&options(), Some(shelf.clone())).expect("starts");
        on(&thread, which, &options())
    };
    let ask = || request(question(0, 5, "red"), 24);
    let first = start("target").generate(ask()).await.expect("it answers");
    assert_eq!((shelf.kept.lock().expect("no panic").len(), *shelf.found.lock().expect("no panic")), (5, 0));
    let again = start("target").generate(ask()).await.expect("it answers");
    assert_eq!(*shelf.found.lock().expect("no panic"), 5);
    assert_same(&first, &again);
    // Another checkpoint has embeddings of its own.
    start("draft").generate(ask()).await.expect("it answers");
    assert_eq!((shelf.kept.lock().expect("no panic").len(), *shelf.found.lock().expect("no panic")), (10, 5));
    for bytes in shelf.kept.lock().expect("no panic").values_mut() {
        bytes.truncate(bytes.len() - 4);
    }
    assert_same(&first, &start("target").generate(ask()).await.expect("it answers"));
}

#[tokio::test]
async fn a_panic_ends_the_request_that_met_it_and_no_other() {
    let shelf = Arc::new(Shelf { panics: true, ..Shelf::default() });
    let thread = DeviceThread::start(&options(), Some(shelf)).expect("starts");
    let model = on(&thread, "target", &options());
    let words = || request(vec![message(Role::User, vec![text("What digit flashes?")])], 24);
    let (with_frames, without) =
        tokio::join!(model.generate(request(question(0, 2, "red"), 24)), model.generate(words()));
    let error = with_frames.expect_err("its tier panicked").to_string();
    assert!(error.contains("panicked"), "{error}");
    let reference = load(&demo("target")).generate(words()).await.expect("it answers");
    assert_same(&without.expect("it answers"), &reference);
    assert_same(&model.generate(words()).await.expect("the model lives on"), &reference);
}

#[tokio::test]
async fn the_wait_for_the_model_is_told_apart() {
    let folder = copy(&data("untied/model"));
    let model = load(folder.path());
    let [first, second] =
        all(&model, vec![request(question(0, 9, "red"), 8), request(question(0, 9, "blue"), 8)])
            .await
            .try_into()
            .expect("two");
    // The second waited for the first one's frames, and encoded none.
    assert!(second.times.wait_ms > first.times.wait_ms);
    assert!(second.times.vision_ms < first.times.vision_ms);
    assert!(second.counts.reused > second.counts.visual);
}
