//! The runner over a real home and real encoded videos, with scripted models.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use spectemp_engine::{
    ModelCard, Vlm, VlmError,
    testing::{ScriptedVlm, card},
};
use spectemp_store::{Home, Locations, Submission};
use spectemp_types::{JobId, JobSpec, JobStatus, Round, Trace};
use spectemp_worker::{Ended, Event, Models, Options, Outcome, Runner, Stop, Work};
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{ANSWER, OTHER_SEGMENT, Place, SEGMENT, lines, spec};

async fn submit(home: &Home, specs: &[JobSpec]) -> Vec<JobId> {
    let submissions = home.ledger().submit("batch", specs).await.unwrap();
    let id = |submission| match submission {
        Submission::New(job) | Submission::Existing { job, .. } => job,
        Submission::Conflict(conflict) => panic!("{conflict}"),
    };
    submissions.into_iter().map(id).collect()
}

/// All that a run told, and how it ended.
struct Told {
    ended: Ended,
    events: Vec<Event>,
}

impl Told {
    fn rounds(&self, id: &str) -> Vec<Round> {
        let round = |event: &Event| match event {
            Event::Round { name, round } if &*name.id == id => Some(Round::clone(round)),
            _ => None,
        };
        self.events.iter().filter_map(round).collect()
    }

    fn trace(&self, id: &str) -> Trace {
        match self.outcome(id) {
            Outcome::Answered(trace) => Trace::clone(&trace),
            other => panic!("{id} ended with {other:?}"),
        }
    }

    fn outcome(&self, id: &str) -> Outcome {
        let outcome = |event: &Event| match event {
            Event::Ended { name, outcome } if &*name.id == id => Some(outcome.clone()),
            _ => None,
        };
        self.events.iter().find_map(outcome).unwrap_or_else(|| panic!("{id} did not end: {:?}", self.events))
    }

    fn error(&self, id: &str) -> String {
        match self.outcome(id) {
            Outcome::Failed(error) => error,
            other => panic!("{id} ended with {other:?}"),
        }
    }
}

/// Runs `specs`; `react` sees every event as it happens and may pull the brake.
async fn run_with(
    home: &Arc<Home>,
    models: Models,
    specs: &[JobSpec],
    react: impl Fn(&Event, &Stop) + Send + 'static,
) -> Told {
    let ids = submit(home, specs).await;
    let jobs: HashMap<_, _> = ids.into_iter().zip(specs).map(|(id, spec)| (id, spec.video.clone())).collect();
    let options = Options { first_wait: Duration::from_millis(5), retries: 2, ..Options::default() };
    let runner = Runner::new(home.clone(), Arc::new(Locations::default()), models, options);
    let (sender, mut receiver) = unbounded_channel();
    let stop = Stop::default();
    let brake = stop.clone();
    let listen = tokio::spawn(async move {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            react(&event, &brake);
            events.push(event);
        }
        events
    });
    let work = Work { batch: "batch".to_owned(), jobs };
    let ended = runner.run(work, stop, sender).await.unwrap();
    Told { ended, events: listen.await.unwrap() }
}

async fn run(home: &Arc<Home>, models: Models, specs: &[JobSpec]) -> Told {
    run_with(home, models, specs, |_, _| {}).await
}

/// What must be the same however often a job was interrupted.
fn essence(trace: &Trace) -> serde_json::Value {
    let mut rounds = serde_json::to_value(&trace.rounds).unwrap();
    for round in rounds.as_array_mut().unwrap() {
        let round = round.as_object_mut().unwrap();
        round.remove("io");
        round.remove("times");
        round.remove("timeline");
        round.remove("zero_unix_ms");
        for turn in round["turns"].as_array_mut().unwrap() {
            turn.as_object_mut().unwrap().remove("times");
        }
    }
    serde_json::json!([rounds, trace.answer])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_stopped_after_each_round_comes_to_the_same() {
    let place = Place::new();
    let video = place.video("a.mp4", 90);
    let home = place.home().await;
    let script = [SEGMENT, OTHER_SEGMENT, SEGMENT, ANSWER];
    let whole = run(&home, lines(&script), &[spec("whole", &video, &[])]).await.trace("whole");
    assert_eq!(whole.rounds.len(), 4);

    let mut job = spec("whole", &video, &[]);
    job.id = "stopped".to_owned();
    let mut made = Vec::new();
    let last = loop {
        // Each run makes one round: the brake is pulled as soon as it is committed.
        let brake = |event: &Event, stop: &Stop| {
            if matches!(event, Event::Round { .. }) {
                stop.soft.cancel();
            }
        };
        let told = run_with(&home, lines(&script), std::slice::from_ref(&job), brake).await;
        made.extend(told.rounds("stopped").iter().map(|round| round.no));
        match told.outcome("stopped") {
            Outcome::Released => assert_eq!(told.ended, Ended::Interrupted),
            _ => break told.trace("stopped"),
        }
    };
    assert_eq!(made, [0, 1, 2, 3], "no round is made twice");
    assert_eq!(essence(&last), essence(&whole));
    let id = submit(&home, &[job]).await[0];
    assert_eq!(home.ledger().job(id).await.unwrap().status, JobStatus::Answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_on_one_video_read_it_once() {
    let place = Place::new();
    let (a, b) = (place.video("a.mp4", 90), place.video("b.mp4", 30));
    let home = place.home().await;
    let set = ["strategy=uniform"];
    let specs = [
        spec("a1", &a, &set),
        spec("b1", &b, &set),
        spec("a2", &a, &set),
        spec("a3", &a, &set),
        spec("b2", &b, &set),
    ];
    let told = run(&home, lines(&[ANSWER]), &specs).await;
    for pair in [["a1", "a2", "a3"].as_slice(), &["b1", "b2"]] {
        let io: Vec<_> = pair.iter().map(|id| told.trace(id).totals.io).collect();
        let paid = io.iter().filter(|io| io.decoded_frames > 0).count();
        assert_eq!(paid, 1, "{io:?}");
        assert_eq!(io.iter().filter(|io| io.bytes > 0).count(), 1, "{io:?}");
    }
    let row = home.ledger().video(&specs[0].video).await.unwrap().unwrap();
    assert_eq!(row.bytes, std::fs::metadata(&a).unwrap().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_of_another_version_or_model_are_not_mixed() {
    let place = Place::new();
    let video = place.video("a.mp4", 90);
    let home = place.home().await;
    let job = [spec("a", &video, &["max_rounds=7"])];
    // Long enough that no brake comes too late.
    let script = [SEGMENT, OTHER_SEGMENT, SEGMENT, OTHER_SEGMENT, SEGMENT, OTHER_SEGMENT, ANSWER];
    let brake = |event: &Event, stop: &Stop| {
        if matches!(event, Event::Round { .. }) {
            stop.soft.cancel();
        }
    };
    let restarted = |told: &Told| {
        let cause = |event: &Event| match event {
            Event::Restarted { dropped, cause, .. } => Some((*dropped, cause.clone())),
            _ => None,
        };
        told.events.iter().find_map(cause)
    };
    // The brake may come when the next round has begun already: then that one is finished too.
    let told = run_with(&home, lines(&script), &job, brake).await;
    assert_eq!((restarted(&told), told.ended), (None, Ended::Interrupted));
    let committed = |told: &Told| told.rounds("a").len() as u32;
    let before = committed(&told);

    // The file is written again: another ETag.
    tokio::time::sleep(Duration::from_millis(20)).await;
    place.video("a.mp4", 200);
    let told = run_with(&home, lines(&script), &job, brake).await;
    assert_eq!(restarted(&told), Some((before, "the video has changed".to_owned())));
    assert_eq!((told.rounds("a")[0].no, told.ended), (0, Ended::Interrupted));
    let before = committed(&told);

    let target = |card| Models { target: Arc::new(ScriptedVlm::lines(card, &script)), ..lines(&script) };
    let mut other = card("target");
    other.revision.revision = "other".to_owned();
    let told = run_with(&home, target(other.clone()), &job, brake).await;
    let cause = "the target is another model (other, before it was scripted)".to_owned();
    assert_eq!(restarted(&told), Some((before, cause)));
    let before = committed(&told);

    // The same weights elsewhere are the same, and its own prompts are others.
    other.revision.name = "/elsewhere".to_owned();
    let told = run_with(&home, target(other.clone()), &job, brake).await;
    assert_eq!((restarted(&told), told.rounds("a")[0].no), (None, before));
    let before = before + committed(&told);
    other.templates.target = Some(include_str!("../../../engine/prompts/target.jinja").to_owned() + "\n");
    let told = run(&home, target(other), &job).await;
    let cause = "the prompts of the target have changed".to_owned();
    assert_eq!(restarted(&told), Some((before, cause.clone())));
    let trace = told.trace("a");
    assert_eq!((trace.rounds.len(), committed(&told)), (script.len(), script.len() as u32));
    assert_eq!(trace.target.revision, "other");
    let note = format!("the job began again without its {before} earlier rounds: {cause}");
    assert_eq!(trace.rounds[0].warnings, [note]);
    assert!(trace.rounds[1..].iter().all(|round| round.warnings.is_empty()), "{trace:?}");
}

/// A target that fails `failures` times with `error` before each answer.
fn failing(
    card: ModelCard,
    failures: usize,
    error: impl Fn() -> VlmError + Send + Sync + 'static,
) -> Arc<dyn Vlm> {
    let calls = AtomicUsize::new(0);
    Arc::new(ScriptedVlm::new(card, move |_| {
        if calls.fetch_add(1, Ordering::Relaxed) % (failures + 1) < failures {
            Err(error())
        } else {
            Ok(ANSWER.to_owned())
        }
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_are_tried_again_and_others_are_not() {
    let place = Place::new();
    let video = place.video("a.mp4", 90);
    let home = place.home().await;
    let set = ["strategy=uniform"];
    let backend = || VlmError::Backend("out of breath".to_owned());
    let models = |target| Models { target, draft: None };

    let told = run(&home, models(failing(card("t"), 2, backend)), &[spec("twice", &video, &set)]).await;
    assert_eq!(told.trace("twice").answer.text, "seven");
    assert_eq!(told.events.iter().filter(|event| matches!(event, Event::Retry { .. })).count(), 2);

    let told = run(&home, models(failing(card("t"), 3, backend)), &[spec("thrice", &video, &set)]).await;
    assert!(told.error("thrice").contains("out of breath"));

    let wrong = || VlmError::Request("no such thing".to_owned());
    let told = run(&home, models(failing(card("t"), 1, wrong)), &[spec("wrong", &video, &set)]).await;
    assert!(told.error("wrong").contains("no such thing"));
    assert!(!told.events.iter().any(|event| matches!(event, Event::Retry { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_job_ends_alone() {
    let place = Place::new();
    let video = place.video("a.mp4", 90);
    let text = place.dir.path().join("text.mp4");
    std::fs::write(&text, "this is no video").unwrap();
    let home = place.home().await;
    let set = ["strategy=uniform"];
    let specs = [
        spec("missing", &place.dir.path().join("missing.mp4"), &set),
        spec("text", &text, &set),
        spec("panics", &video, &set),
        spec("good", &video, &set),
    ];
    let target = ScriptedVlm::new(card("t"), |request| {
        let asked = format!("{:?}", request.messages);
        assert!(!asked.contains("What about panics?"), "a defect");
        Ok(ANSWER.to_owned())
    });
    let told = run(&home, Models { target: Arc::new(target), draft: None }, &specs).await;
    assert_eq!(told.ended, Ended::Done);
    assert!(told.error("missing").contains("missing.mp4"), "{}", told.error("missing"));
    assert!(told.error("text").contains("text.mp4"), "{}", told.error("text"));
    assert!(told.error("panics").contains("a defect"), "{}", told.error("panics"));
    assert_eq!(told.trace("good").answer.text, "seven");
    let counts = home.ledger().counts(Some("batch")).await.unwrap();
    assert_eq!((counts.answered, counts.failed, counts.running), (1, 3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_jobs_of_the_batch_are_left_alone() {
    let place = Place::new();
    let video = place.video("a.mp4", 90);
    let home = place.home().await;
    let set = ["strategy=uniform"];
    let others: Vec<_> = ["x", "y"].iter().map(|id| spec(id, &video, &set)).collect();
    let ids = submit(&home, &others).await;
    let told = run(&home, lines(&[ANSWER]), &[spec("mine", &video, &set)]).await;
    assert_eq!(told.trace("mine").answer.text, "seven");
    for id in ids {
        let job = home.ledger().job(id).await.unwrap();
        assert_eq!(job.status, JobStatus::Queued);
        assert!(home.ledger().rounds(id).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thumbnails_lie_beside_the_trace() {
    let place = Place::new();
    let video = place.video("a.mp4", 90);
    let home = place.home().await;
    let told = run(&home, lines(&[SEGMENT, ANSWER]), &[spec("a", &video, &[])]).await;
    let trace = told.trace("a");
    let answer = home.ledger().answer(trace.job_id).await.unwrap().unwrap();
    let kept = home.objects().trace(trace.job_id, answer.epoch).await.unwrap().unwrap();
    assert_eq!(essence(&kept), essence(&trace));
    for round in &trace.rounds {
        assert!(!round.frames.is_empty());
        for frame in 0..round.frames.len() as u32 {
            let key = spectemp_store::ObjectKey::Thumbnail { job: trace.job_id, round: round.no, frame };
            let png = home.objects().get(&key).await.unwrap().unwrap_or_else(|| panic!("no {key}"));
            assert!(png.starts_with(b"\x89PNG"));
        }
    }
}
