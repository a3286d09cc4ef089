//! What a second question about a video costs, and what a later round does: read from the traces of the program itself,
//! over a file and over HTTP, where a server counts what goes over the wire.

use serde_json::json;
use spectemp_types::{IoFigures, Trace, Turn, TurnFinish, TurnRole};

use crate::{
    ranges::RangeServer,
    support::{Place, Video, jobs, model, pair, with_pair},
};

/// The trace of a job.
fn trace(place: &Place, id: &str) -> Trace {
    let done = place.run(&["show", id, "--json"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap()
}

/// Answers the questions `numbers` about the video at `uri` in one process, one after the other.
fn ask_in_turn(place: &Place, video: &Video, uri: &str, numbers: &[usize]) -> Vec<Trace> {
    let id = |number: usize| format!("q{number}");
    let job = |&number: &usize| json!({ "id": id(number), "video": uri, "question": video.plan.questions[number].text });
    let file = place.write_jobs("jobs.jsonl", &numbers.iter().map(job).collect::<Vec<_>>());
    let pair = pair();
    let done = place.run(&with_pair(&["run", &file, "--results", "out", "--concurrency", "1"], &pair));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    numbers.iter().map(|&number| trace(place, &id(number))).collect()
}

fn target_turns(trace: &Trace) -> Vec<&Turn> {
    let turns = trace.rounds.iter().flat_map(|round| &round.turns);
    turns.filter(|turn| turn.role == TurnRole::Target).collect()
}

/// Tokens of a turn's prompt.
fn prompt(turn: &Turn) -> u64 {
    turn.tokens.text + turn.tokens.visual
}

/// Those of them that were run.
fn prefilled(turn: &Turn) -> u64 {
    prompt(turn) - turn.tokens.reused
}

/// Round 0 shows the same frames to every question. What later rounds look at hangs on the question.
fn assert_the_second_pays_for_its_own_words(first: &Trace, second: &Trace) {
    let (paid, free) = (&first.rounds[0], &second.rounds[0]);
    assert!(paid.io.bytes > 0 && paid.io.decoded_frames > 0, "{:?}", paid.io);
    assert_eq!(free.io, IoFigures::default());
    let (one, other) = (target_turns(first)[0], target_turns(second)[0]);
    assert!(one.tokens.visual > 0 && one.tokens.encoded == one.tokens.visual, "{:?}", one.tokens);
    assert_eq!((other.tokens.visual, other.tokens.encoded), (one.tokens.visual, 0));
    assert_eq!(one.tokens.reused, 0);
    assert!(4 * prefilled(other) <= prefilled(one), "{:?} after {:?}", other.tokens, one.tokens);
}

/// A target's later turn runs what is new: its cache holds all that it has seen and written before, the last token only
/// where the form of the turn settled it.
fn assert_later_rounds_prefill_only_what_is_new(trace: &Trace) {
    for pair in target_turns(trace).windows(2) {
        let (before, turn) = (pair[0], pair[1]);
        assert_ne!(before.finish, TurnFinish::Length);
        let had = prompt(before) + before.tokens.generated;
        assert!([had - 1, had].contains(&turn.tokens.reused), "{had}: {:?}", turn.tokens);
        // Of its frames those of its own round alone go through the vision tower.
        let new = turn.tokens.visual - before.tokens.visual;
        assert!(turn.tokens.encoded <= new && new < turn.tokens.visual, "{:?}", turn.tokens);
    }
}

#[test]
fn the_second_question_costs_no_byte_no_decoding_no_vision_and_a_quarter_of_the_prefill() {
    let place = Place::new();
    let video = place.videos(&[300], 2).remove(0);
    let traces = ask_in_turn(&place, &video, video.path.to_str().unwrap(), &[0, 1]);
    assert_the_second_pays_for_its_own_words(&traces[0], &traces[1]);
    let rounds: Vec<usize> = traces.iter().map(|trace| trace.rounds.len()).collect();
    assert!(rounds.iter().all(|&rounds| rounds > 1), "a question was answered at once: {rounds:?}");
    traces.iter().for_each(assert_later_rounds_prefill_only_what_is_new);
}

#[test]
fn so_it_does_over_http_where_the_server_counts() {
    let place = Place::new();
    let video = place.videos(&[300], 3).remove(0);
    let server = RangeServer::start(&video.path);
    let traces = ask_in_turn(&place, &video, &server.url, &[0, 1]);
    assert_the_second_pays_for_its_own_words(&traces[0], &traces[1]);
    traces.iter().for_each(assert_later_rounds_prefill_only_what_is_new);
    let told: u64 = traces.iter().map(|trace| trace.totals.io.bytes).sum();
    assert_eq!(server.take(), told, "the traces tell every byte that went over the wire");

    // Another process has neither decoded frames nor keys and values. The disk still has embeddings, and bytes as far as
    // they are not read to see whether the object is the same.
    let third = ask_in_turn(&place, &video, &server.url, &[2]).remove(0);
    assert_eq!(target_turns(&third)[0].tokens.encoded, 0);
    assert!(third.rounds[0].io.bytes < traces[0].rounds[0].io.bytes, "{:?}", third.rounds[0].io);
    assert_eq!(server.take(), third.totals.io.bytes);
}

#[test]
fn of_questions_asked_at_once_one_pays_for_the_frames() {
    let place = Place::new();
    let file = place.write_jobs("jobs.jsonl", &jobs(&place.videos(&[64], 3)));
    let target = model("target");
    let uniform = ["--plan", "demo", "--set", "strategy=uniform", "--target", &target];
    let done = place.run(&[&["run", &file, "--results", "out"], &uniform[..]].concat());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let traces = ["0-0", "0-1", "0-2"].map(|id| trace(&place, id));
    let paid = |cost: fn(&Trace) -> u64| traces.iter().filter(|trace| cost(trace) > 0).count();
    let costs: [fn(&Trace) -> u64; 3] = [
        |trace| trace.totals.io.bytes,
        |trace| trace.totals.io.decoded_frames,
        |trace| trace.totals.tokens.encoded,
    ];
    assert_eq!(costs.map(paid), [1; 3], "{:?}", traces.map(|trace| trace.totals));
}
