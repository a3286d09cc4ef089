//! The loop over the demonstration pair on one thread: what a round and a second question compute anew.

use std::sync::Arc;

use spectemp_engine::testing::StillFrames;
use spectemp_engine::{Session, Setup, Vlm};
use spectemp_model::{DeviceThread, ModelFiles, QwenVlm};
use spectemp_types::{JobSpec, Plan, Question, Round, Stage, Turn, TurnFinish, TurnRole, VideoUri};
use tokio_util::sync::CancellationToken;

use crate::support::{demo, options};

struct Pair {
    target: Arc<dyn Vlm>,
    draft: Arc<dyn Vlm>,
}

impl Pair {
    fn load() -> Self {
        let thread = DeviceThread::start(&options(), None).expect("starts");
        let load = |which| {
            let files = ModelFiles::folder(demo(which));
            Arc::new(QwenVlm::load_on(&thread, &files, &options()).expect("loads"))
        };
        Self { target: load("target"), draft: load("draft") }
    }

    async fn ask(&self, question: &str) -> Vec<Round> {
        let spec = JobSpec {
            id: question.to_owned(),
            video: VideoUri::parse("stills.mp4").expect("a path"),
            question: Question::new(question, Vec::new()).expect("a question"),
            plan: Plan::named("demo").expect("a plan"),
        };
        let setup = Setup {
            spec,
            target: Arc::clone(&self.target),
            draft: Some(Arc::clone(&self.draft)),
            frames: Arc::new(StillFrames::lasting(300.0)),
            cancel: CancellationToken::new(),
        };
        let mut session = Session::new(setup, Vec::new()).expect("a session");
        while session.next_round().await.expect("a round").is_some() {}
        session.rounds().to_vec()
    }
}

fn target_turns(rounds: &[Round]) -> Vec<&Turn> {
    rounds.iter().flat_map(|round| &round.turns).filter(|turn| turn.role == TurnRole::Target).collect()
}

fn prompt(turn: &Turn) -> u64 {
    turn.tokens.text + turn.tokens.visual
}

#[tokio::test]
async fn later_rounds_and_questions_prefill_only_what_is_new() {
    let pair = Pair::load();
    let rounds = pair.ask("What digit flashes in the red scene?").await;
    let turns = target_turns(&rounds);
    assert!(turns.len() > 1, "the pair answers at once: {rounds:?}");
    for pair in turns.windows(2) {
        let (before, turn) = (pair[0], pair[1]);
        assert_ne!(before.finish, TurnFinish::Length);
        // All that the model has seen and written; the last token was run only where its form settled it before.
        let had = prompt(before) + before.tokens.generated;
        assert!([had - 1, had].contains(&turn.tokens.reused), "{had}: {turn:?}");
    }
    let other = pair.ask("What digit flashes in the green scene?").await;
    let (first, second) = (turns[0], target_turns(&other)[0]);
    assert_eq!(first.tokens.reused, 0);
    assert!(second.tokens.reused > second.tokens.visual, "no frame is encoded again: {second:?}");
    let computed = prompt(second) - second.tokens.reused;
    assert!(4 * computed <= prompt(first), "{computed} of {}", prompt(first));
}

#[tokio::test]
async fn the_time_line_tells_every_stage_of_every_turn() {
    let rounds = Pair::load().ask("What digit flashes in the red scene?").await;
    let stages = [Stage::Wait, Stage::Vision, Stage::Prefill, Stage::Generate];
    let mut now = 0.0;
    for round in &rounds {
        assert!(round.timeline.iter().any(|span| (span.stage, span.turn) == (Stage::Frames, None)));
        for (number, turn) in (0..).zip(&round.turns) {
            let own: Vec<_> = round.timeline.iter().filter(|span| span.turn == Some(number)).collect();
            assert_eq!(own.iter().map(|span| span.stage).collect::<Vec<_>>(), stages);
            let spent = own.last().expect("four").ended_ms - own[0].began_ms;
            let told =
                turn.times.wait_ms + turn.times.vision_ms + turn.times.prefill_ms + turn.times.generate_ms;
            assert!((spent - told).abs() < 1e-3, "{spent} {told}");
        }
        for span in &round.timeline {
            assert!(span.began_ms >= now && span.ended_ms >= span.began_ms, "{:?}", round.timeline);
            now = span.ended_ms;
        }
    }
    assert!(now > 0.0);
}
