//! Resuming after any round gives the same remaining rounds as never stopping, and the context only grows.

use std::sync::Arc;

use proptest::prelude::*;
use spectemp_engine::{
    Message, Request, Session, SessionError,
    testing::{ScriptedVlm, transcript},
};
use spectemp_types::{IoFigures, Round, StageTimes, TurnRole};

use crate::common::{demo_card, run, setup, spec};

/// A pair whose every output is a function of all it was sent: a wrong image, label or token changes all that follows.
fn hashing(salt: u64) -> (Arc<ScriptedVlm>, Arc<ScriptedVlm>) {
    let byte = move |request: &Request| {
        let mut hash = blake3::Hasher::new();
        hash.update(&salt.to_le_bytes());
        hash.update(format!("{:?}{:?}", request.sampling, request.score).as_bytes());
        hash.update(transcript(&request.messages).as_bytes());
        hash.finalize().as_bytes()[0]
    };
    let target = move |request: &Request| {
        let byte = byte(request);
        let start = u32::from(byte) % 250;
        Ok(match byte % 16 {
            0 => format!("<answer>{byte}</answer>"),
            1 => "no tag at all".to_owned(),
            2 => "<segment>(900, 901)</segment>".to_owned(),
            3 => format!("<think>{byte}</think><segment>({}, {start})</segment>", start + 31),
            _ => format!("<think>{byte}</think><segment>({start}, {}.5)</segment>", start + 31),
        })
    };
    let draft = move |request: &Request| {
        let byte = byte(request);
        Ok(match byte % 8 {
            0 => "none of them".to_owned(),
            1 => format!("<frame>{byte}</frame>"),
            _ => format!("<think>{byte}</think><frame>[{}, {}]</frame>", byte, byte.wrapping_add(9)),
        })
    };
    (
        Arc::new(ScriptedVlm::new(demo_card("target"), target)),
        Arc::new(ScriptedVlm::new(demo_card("draft"), draft)),
    )
}

/// A round without what it cost.
fn bare(round: &Round) -> Round {
    let mut round = Round {
        io: IoFigures::default(),
        times: StageTimes::default(),
        timeline: Vec::new(),
        zero_unix_ms: None,
        ..round.clone()
    };
    for turn in &mut round.turns {
        turn.times = StageTimes::default();
        turn.tokens.reused = 0;
    }
    round
}

fn overrides() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(
        vec![
            "history=traces",
            "final_answer=extra_turn",
            "max_rounds=5",
            "temperature=0.8",
            "dense_cap=12",
            "dense_fps=1.7",
        ],
        0..5,
    )
}

fn strategy() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "strategy=spectemp",
        "strategy=spectemp",
        "strategy=target-uniform",
        "strategy=perception-rounds",
        "strategy=uniform",
    ])
}

fn common_start(a: &[Message], b: &[Message]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn resuming_changes_nothing(salt in any::<u64>(), mut overrides in overrides(), strategy in strategy(), cut in 0..6_usize) {
        overrides.push(strategy);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let spec = spec("demo", &overrides, if salt % 2 == 0 { &["3", "7"] } else { &[] });
        let (target, draft) = hashing(salt);
        let (whole, outcome) = runtime.block_on(run(setup(spec.clone(), &target, &draft), vec![])).unwrap();

        // Through JSON, as a ledger keeps them.
        let kept = whole[..cut.min(whole.len())].to_vec();
        let kept: Vec<Round> = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        let (target, draft) = hashing(salt);
        let (resumed, again) = runtime.block_on(run(setup(spec, &target, &draft), kept)).unwrap();
        let bared = |rounds: &[Round]| rounds.iter().map(bare).collect::<Vec<_>>();
        prop_assert_eq!(bared(&whole), bared(&resumed));
        prop_assert_eq!(outcome.answer, again.answer);
    }

    #[test]
    fn the_full_context_only_grows(salt in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let spec = spec("demo", &["final_answer=extra_turn"], &[]);
        let (target, draft) = hashing(salt);
        let (rounds, _) = runtime.block_on(run(setup(spec, &target, &draft), vec![])).unwrap();
        let requests = target.requests();
        let turns = rounds.iter().flat_map(|round| &round.turns).filter(|turn| turn.role == TurnRole::Target).count();
        prop_assert_eq!(requests.len(), turns);
        for pair in requests.windows(2) {
            prop_assert_eq!(common_start(&pair[0].messages, &pair[1].messages), pair[0].messages.len());
        }
    }
}

#[tokio::test]
async fn rounds_that_do_not_fit_are_refused() {
    let (target, draft) = hashing(1);
    let setup = || setup(spec("demo", &["strategy=target-uniform"], &[]), &target, &draft);
    let (rounds, _) = run(setup(), vec![]).await.unwrap();
    let refused = |rounds: Vec<Round>| match Session::new(setup(), rounds) {
        Err(SessionError::Resume(cause)) => cause,
        _ => unreachable!("these rounds must be refused"),
    };
    assert!(rounds.len() > 1);
    assert!(refused(rounds[1..].to_vec()).contains("round 0 is missing"));
    let mut newer = rounds.clone();
    newer[0].version = 2;
    assert!(refused(newer).contains("version 2"));
    let mut answered = rounds.clone();
    answered[0].verdict = answered.last().unwrap().verdict.clone();
    assert!(refused(answered).contains("others follow"));
}

#[tokio::test]
async fn a_changed_video_is_noticed() {
    use spectemp_engine::testing::StillFrames;
    let (target, draft) = hashing(3);
    let spec = spec("demo", &["strategy=target-uniform"], &[]);
    let mut session = Session::new(setup(spec.clone(), &target, &draft), vec![]).unwrap();
    session.next_round().await.unwrap();
    let mut other = setup(spec, &target, &draft);
    other.frames = Arc::new(StillFrames { fps: 0.3, ..StillFrames::lasting(300.0) });
    let mut resumed = Session::new(other, session.rounds().to_vec()).unwrap();
    let error = resumed.next_round().await.unwrap_err();
    assert!(error.to_string().contains("not the video of these rounds"), "{error}");
}
