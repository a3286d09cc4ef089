//! What a process generated, counted from its own log: it names every generation when it starts and when it ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Value, json};

/// A generation's place: job, round, model, and which of that model's turns in the round it is.
pub(crate) type Turn = (String, u64, String, usize);

/// All generations of one process, with their tokens where they ended.
pub(crate) struct Generations(pub(crate) BTreeMap<Turn, Option<u64>>);

impl Generations {
    pub(crate) fn of(log: &Path) -> Self {
        let text = std::fs::read_to_string(log).unwrap();
        let mut turns: BTreeMap<Turn, Option<u64>> = BTreeMap::new();
        for line in text.lines() {
            // The last line of a killed process may be cut off.
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let Some((job, round, role)) = place(&event) else { continue };
            let mine: Vec<Turn> = turns
                .keys()
                .filter(|turn| (&turn.0, turn.1, &turn.2) == (&job, round, &role))
                .cloned()
                .collect();
            match event["message"].as_str() {
                Some("generation started") => {
                    turns.insert((job, round, role, mine.len()), None);
                }
                Some("generation ended") => {
                    let tokens = event["tokens.generated"].as_u64().unwrap();
                    let last = mine.last().expect("a generation ends after it started");
                    turns.insert(last.clone(), Some(tokens));
                }
                _ => {}
            }
        }
        Self(turns)
    }

    pub(crate) fn rounds(&self) -> BTreeSet<(String, u64)> {
        self.0.keys().map(|(job, round, ..)| (job.clone(), *round)).collect()
    }
}

fn place(event: &Value) -> Option<(String, u64, String)> {
    let role = event.get("model.role")?.as_str()?.to_owned();
    Some((event["job.user_id"].as_str()?.to_owned(), event["round.no"].as_u64()?, role))
}

/// The parts of a round that hang on nothing but the job.
pub(crate) fn essence(round: &Value) -> Value {
    let text = |turn: &Value| json!([turn["role"], turn["text"], turn["token_ids"]]);
    let turns: Vec<Value> = round["turns"].as_array().unwrap().iter().map(text).collect();
    json!([round["frames"], round["dense"], round["verdict"]["kind"], turns])
}

/// An answer without what timing and caches decide.
pub(crate) fn answer(row: &Value) -> Value {
    json!([row["id"], row["answer"], row["choice"], row["evidence"], row["totals"]["rounds"]])
}

/// Splitmix64, for moments to kill at.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below one.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) as f64 / u64::MAX as f64
    }
}
