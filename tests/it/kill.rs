//! `spectemp run` is killed again and again, at random moments, until it is done: no answer may differ from those of
//! an undisturbed run, no committed round may be made again, and no more may be generated in vain than one round per
//! kill and running job.
//!
//! What was generated is counted from the program's own log. A generation that a kill cut off is charged in full, with
//! what the same generation came to in the undisturbed run.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitStatus,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::{
    generations::{Generations, Random, Turn, answer, essence},
    support::{Place, jobs, pair, with_pair},
};

const KILLS: usize = 30;
const CONCURRENCY: usize = 2;

/// What an undisturbed run came to.
struct Reference {
    answers: Vec<Value>,
    rounds: BTreeMap<(String, u64), Value>,
    turns: BTreeMap<Turn, u64>,
    took: Duration,
}

impl Reference {
    fn tokens(&self) -> u64 {
        self.turns.values().sum()
    }

    fn tokens_of(&self, round: &(String, u64)) -> u64 {
        self.turns.iter().filter(|(turn, _)| (&turn.0, turn.1) == (&round.0, round.1)).map(|(_, n)| n).sum()
    }
}

struct Test {
    place: Place,
    file: String,
    pair: Vec<String>,
    processes: usize,
}

impl Test {
    fn args<'a>(&'a self, results: &'a str) -> Vec<&'a str> {
        let concurrency = ["--concurrency", "2", "-vv", "--log-json"];
        let args: Vec<&str> =
            ["run", &self.file, "--results", results].into_iter().chain(concurrency).collect();
        with_pair(&args, &self.pair)
    }

    /// Runs the command, at most for `limit`; its status and its generations.
    fn run(&mut self, results: &str, limit: Option<Duration>) -> (Option<ExitStatus>, Generations) {
        self.processes += 1;
        let log = self.place.path(&format!("{}.log", self.processes));
        let mut child = self.place.start(&self.args(results), &log);
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if limit.is_some_and(|limit| started.elapsed() >= limit) {
                child.kill().unwrap();
                // It may have ended by itself in between.
                let status = child.wait().unwrap();
                break status.code().is_some().then_some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if let Some(status) = status {
            assert!(status.success(), "{status}: {}", std::fs::read_to_string(&log).unwrap());
        }
        (status, Generations::of(&log))
    }

    /// Committed rounds of a batch: when they were committed, and the rounds themselves.
    fn committed(&self, results: &str) -> BTreeMap<(String, u64), (String, Value)> {
        if !self.place.path("home/ledger.sqlite").exists() {
            return BTreeMap::new();
        }
        let query =
            format!("select id, round, committed_at, json from rounds where batch like '%/{results}'");
        let row = |row: &Value| {
            let key = (row["id"].as_str().unwrap().to_owned(), row["round"].as_u64().unwrap());
            let round = serde_json::from_str(row["json"].as_str().unwrap()).unwrap();
            (key, (row["committed_at"].as_str().unwrap().to_owned(), round))
        };
        self.place.sql(&query).iter().map(row).collect()
    }

    fn reference(&mut self) -> Reference {
        let started = Instant::now();
        let (_, generations) = self.run("undisturbed", None);
        let took = started.elapsed();
        let turns =
            generations.0.into_iter().map(|(turn, tokens)| (turn, tokens.expect("all generations ended")));
        let rounds =
            self.committed("undisturbed").into_iter().map(|(key, (_, round))| (key, essence(&round)));
        Reference {
            answers: self.place.results("undisturbed", "answers.jsonl"),
            turns: turns.collect(),
            rounds: rounds.collect(),
            took,
        }
    }

    /// Kills the command until one survives to the end; how often it was killed.
    fn disturbed(&mut self, results: &str, reference: &Reference, random: &mut Random) -> usize {
        let (mut kills, mut tokens, mut allowed) = (0, 0, reference.tokens());
        let mut before = BTreeMap::new();
        loop {
            let limit = reference.took.mul_f64(0.4).max(Duration::from_secs(1)).mul_f64(random.fraction());
            let (status, generations) = self.run(results, Some(limit));
            let after = self.committed(results);
            for (round, row) in &before {
                assert_eq!(after.get(round), Some(row), "committed round {round:?} has changed");
            }
            let made = generations.rounds();
            let again: Vec<_> = made.iter().filter(|round| before.contains_key(*round)).collect();
            assert!(again.is_empty(), "committed rounds were made again: {again:?}");
            tokens +=
                generations.0.iter().map(|(turn, ended)| ended.unwrap_or(reference.turns[turn])).sum::<u64>();
            before = after;
            if status.is_some() {
                break;
            }
            kills += 1;
            let lost: Vec<_> = made.iter().filter(|round| !before.contains_key(*round)).collect();
            let jobs: BTreeSet<&String> = lost.iter().map(|(job, _)| job).collect();
            assert_eq!(jobs.len(), lost.len(), "a job lost more than the round it was in: {lost:?}");
            assert!(jobs.len() <= CONCURRENCY, "{jobs:?} were running at once");
            allowed += lost.iter().map(|round| reference.tokens_of(round)).sum::<u64>();
        }
        assert!(
            tokens <= allowed,
            "{tokens} tokens were generated, {allowed} at most are fair after {kills} kills"
        );
        println!(
            "{results}: {kills} kills, {tokens} tokens generated, undisturbed {}, fair {allowed}",
            reference.tokens()
        );
        self.compare(results, reference, &before);
        kills
    }

    fn compare(
        &self,
        results: &str,
        reference: &Reference,
        rounds: &BTreeMap<(String, u64), (String, Value)>,
    ) {
        let answers = self.place.results(results, "answers.jsonl");
        assert_eq!(
            answers.iter().map(answer).collect::<Vec<_>>(),
            reference.answers.iter().map(answer).collect::<Vec<_>>()
        );
        for (one, other) in answers.iter().zip(&reference.answers) {
            let difference = one["confidence"].as_f64().unwrap() - other["confidence"].as_f64().unwrap();
            assert!(difference.abs() < 1e-4, "{one} {other}");
        }
        let rounds: BTreeMap<_, _> =
            rounds.iter().map(|(key, (_, round))| (key.clone(), essence(round))).collect();
        assert_eq!(rounds, reference.rounds);
        assert!(self.place.results(results, "errors.jsonl").is_empty());
    }
}

#[test]
fn thirty_kills_change_no_answer_and_repeat_no_round() {
    let place = Place::new();
    let videos = place.videos(&[90, 120, 150, 180, 210, 240], 4);
    let all = jobs(&videos);
    let file = place.write_jobs("jobs.jsonl", &all);
    let mut test = Test { place, file, pair: pair(), processes: 0 };
    let reference = test.reference();
    assert_eq!(reference.answers.len(), all.len());
    assert!(reference.rounds.len() > all.len(), "some jobs must take more than one round");

    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}; undisturbed {:.1} s, {} tokens", reference.took.as_secs_f64(), reference.tokens());
    let mut random = Random(seed);
    let (mut kills, mut pass) = (0, 0);
    while kills < KILLS {
        pass += 1;
        kills += test.disturbed(&format!("disturbed-{pass}"), &reference, &mut random);
    }
    println!("{kills} kills in {pass} runs");
}
