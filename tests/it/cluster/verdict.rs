//! What must hold at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use serde_json::{Value, json};

use super::{
    CONCURRENCY, WORKERS,
    chaos::{Life, Told},
    setting::{Reference, Setting},
};
use crate::generations::essence;

type RoundKey = (String, u64);

/// Asserts all of it and reports the figures.
pub(crate) fn judge(setting: &Setting, reference: &Reference, told: &Told) -> Value {
    let answers = setting.answers();
    assert_same("answers", &answers, &reference.answers);
    let rounds: BTreeMap<RoundKey, Value> =
        setting.rounds().iter().map(|(key, round)| (key.clone(), essence(round))).collect();
    assert_same("rounds", &rounds, &reference.rounds);
    setting.assert_traces();

    let begun: Vec<BTreeMap<RoundKey, String>> = told.lives.iter().map(begun).collect();
    // Whoever began a round last has committed it.
    let mut last: BTreeMap<&RoundKey, &str> = BTreeMap::new();
    for (round, at) in begun.iter().flatten() {
        let entry = last.entry(round).or_default();
        *entry = (*entry).max(at);
    }
    let unseen: Vec<&RoundKey> = rounds.keys().filter(|round| !last.contains_key(round)).collect();
    assert!(unseen.is_empty(), "no log tells who made these rounds: {unseen:?}");
    let (mut made, mut in_vain, mut worst) = (0, 0, 0);
    for (life, begun) in told.lives.iter().zip(&begun) {
        let lost: Vec<&RoundKey> =
            begun.iter().filter(|(round, at)| last[round] != at.as_str()).map(|(round, _)| round).collect();
        // A restart of Postgres may cost each worker what a kill costs.
        let blows = usize::from(life.killed) + told.blows.postgres_restarts;
        assert!(
            lost.len() <= CONCURRENCY * blows,
            "{}: {} rounds lost by {blows} blows: {lost:?}",
            life.log.display(),
            lost.len()
        );
        made += begun.len();
        in_vain += lost.len();
        worst = worst.max(lost.len());
    }
    let fair = CONCURRENCY * (told.blows.kills + WORKERS * told.blows.postgres_restarts);
    assert!(in_vain <= fair, "{in_vain} rounds were made in vain, {fair} are fair");
    let (requests, errors, stalls) = setting.s3.figures();
    json!({
        "seed": told.seed,
        "jobs": answers.len(),
        "videos": setting.videos,
        "workers": WORKERS,
        "sessions_per_worker": CONCURRENCY,
        "kills": told.blows.kills,
        "redis_flushes": told.blows.redis_flushes,
        "redis_restarts": told.blows.redis_restarts,
        "postgres_restarts": told.blows.postgres_restarts,
        "s3": { "requests": requests, "errors": errors, "stalls": stalls },
        "answers_equal": answers.len(),
        "rounds": rounds.len(),
        "rounds_begun": made,
        "rounds_in_vain": in_vain,
        "rounds_in_vain_fair": fair,
        "worst_kill": worst,
        "undisturbed_s": reference.took.as_secs_f64(),
        "disturbed_s": told.took.as_secs_f64(),
    })
}

/// All of them as in the undisturbed run; where they are not, only what differs is told.
fn assert_same<K: Ord + Debug>(what: &str, here: &BTreeMap<K, Value>, there: &BTreeMap<K, Value>) {
    let keys: BTreeSet<&K> = here.keys().chain(there.keys()).collect();
    let differ = keys.into_iter().filter(|key| here.get(key) != there.get(key));
    let told: Vec<_> = differ.map(|key| (key, here.get(key), there.get(key))).collect();
    assert!(told.is_empty(), "{what} differ from the undisturbed run's: {told:#?}");
}

/// When each process began each round, the last time that it did.
fn begun(life: &Life) -> BTreeMap<RoundKey, String> {
    let text = std::fs::read_to_string(&life.log).unwrap();
    text.lines().filter_map(begun_round).collect()
}

fn begun_round(line: &str) -> Option<(RoundKey, String)> {
    // The last line of a killed process may be cut off.
    let event: Value = serde_json::from_str(line).ok()?;
    (event["message"] == "generation started").then_some(())?;
    let round = (event["job.user_id"].as_str()?.to_owned(), event["round.no"].as_u64()?);
    Some((round, event["timestamp"].as_str()?.to_owned()))
}
