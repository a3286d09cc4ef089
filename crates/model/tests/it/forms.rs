//! Models that never learned the tags: random weights over the golden tokenizers, drawing at random or greedily, always
//! give turns that the loop can read.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use proptest::prelude::*;
use spectemp_engine::testing::StillFrames;
use spectemp_engine::{Role, Session, Setup, Vlm as _};
use spectemp_model::config::Config;
use spectemp_model::kernels::Threads;
use spectemp_model::network::Network;
use spectemp_model::weights::Weights;
use spectemp_model::{ModelFiles, QwenVlm};
use spectemp_types::{Fallback, JobSpec, Plan, Question, Round, TurnFinish, VideoUri};
use tokio_util::sync::CancellationToken;

use crate::support::{copy, data, load, message, request, text};

/// The golden checkpoint with other, random weights.
pub(crate) fn random_model(folder: &Path, seed: u64) -> tempfile::TempDir {
    let folder = copy(folder);
    let files = ModelFiles::folder(folder.path());
    let config = Config::parse(&files.require("config.json").expect("there")).expect("parses");
    let weights = Weights::random(seed);
    Network::load(&config, &weights, &Device::Cpu, DType::F32, &Threads::new(1)).expect("loads");
    weights.write_random(&folder.path().join("model.safetensors"), |_| 1.0).expect("writable");
    folder
}

fn job(overrides: &[String], choices: &[&str]) -> JobSpec {
    let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
    let plan = Plan::named("demo").expect("a plan").set_all(overrides.iter().map(String::as_str));
    JobSpec {
        id: "q1".to_owned(),
        video: VideoUri::parse("videos/one.mp4").expect("a path"),
        question: Question::new("What happens?", choices).expect("a question"),
        plan: plan.expect("settings"),
    }
}

async fn rounds(spec: JobSpec, target: &Arc<QwenVlm>, draft: &Arc<QwenVlm>) -> Vec<Round> {
    let setup = Setup {
        spec,
        target: Arc::clone(target) as _,
        draft: Some(Arc::clone(draft) as _),
        frames: Arc::new(StillFrames::lasting(61.2)),
        cancel: CancellationToken::new(),
    };
    let mut session = Session::new(setup, Vec::new()).expect("a session");
    while session.next_round().await.expect("a round").is_some() {}
    session.rounds().to_vec()
}

/// What a form cannot rule out.
const LEFT: [Fallback; 4] =
    [Fallback::SegmentReversed, Fallback::SegmentWidened, Fallback::DuplicateLabels, Fallback::TooFewFrames];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn untrained_models_give_turns_that_can_be_read(
        seed in any::<u32>(),
        strategy in prop::sample::select(vec!["spectemp", "target-uniform", "perception-rounds"]),
        temperature in prop::sample::select(vec![0.0, 0.7, 3.0]),
        choices in prop::sample::select(vec![vec![], vec!["a red cat", "a dog"]]),
        max_new in 96_u32..200,
        think in 0_u32..150,
    ) {
        let folders = ["tied", "untied"].map(|name| random_model(&data(&format!("{name}/model")), u64::from(seed)));
        let [target, draft] = folders.each_ref().map(|folder| Arc::new(load(folder.path())));
        let overrides = [
            format!("strategy={strategy}"), format!("temperature={temperature}"), format!("seed={seed}"),
            format!("max_new_tokens={max_new}"), format!("think_tokens={think}"), "dense_cap=8".to_owned(),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for round in runtime.block_on(rounds(job(&overrides, &choices), &target, &draft)) {
            let odd: Vec<_> = round.fallbacks.iter().filter(|fallback| !LEFT.contains(fallback)).collect();
            prop_assert!(odd.is_empty(), "{odd:?} in {:?}", round.turns);
            prop_assert!(round.turns.iter().all(|turn| turn.finish == TurnFinish::Stop));
        }
    }
}

#[tokio::test]
async fn a_turn_ends_at_the_text_that_it_is_to_stop_at() {
    let folder = copy(&data("untied/model"));
    // Every token can be written: nothing ends the turn but its tokens.
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id":9999}"#)
        .expect("writable");
    let model = load(folder.path());
    let ask = |stop: &str| {
        let parts = vec![text("What digit flashes?")];
        let mut request = request(vec![message(Role::User, parts)], 60);
        request.stops = vec![stop.to_owned()];
        request
    };
    let free = model.generate(ask("never written")).await.expect("it answers");
    assert_eq!(free.finish, TurnFinish::Length);
    let stop: String = free.text.chars().skip(4).take(2).collect();
    let stopped = model.generate(ask(&stop)).await.expect("it answers");
    assert_eq!(stopped.finish, TurnFinish::Stop);
    assert!(stopped.text.contains(&stop) && free.text.starts_with(&stopped.text));
    assert_eq!(stopped.counts.generated, stopped.tokens.len() as u64);
}
