//! Jobs of one process share the models' device: what one job's models do beside another's, asked in SQL of the time lines
//! of their rounds.

use serde_json::Value;

use crate::support::{Place, jobs, pair, with_pair};

/// Pairs of stages of two jobs, by who was at work for the other job while a target was writing.
const BESIDE_A_WRITING_TARGET: &str = "\
    select coalesce(o.role, 'frames') as other, count(*) as pairs \
    from stages t join stages o on o.job_id <> t.job_id and o.began_at < t.ended_at and t.began_at < o.ended_at \
    where t.role = 'target' and t.stage = 'generate' and o.stage <> 'wait' group by other";

/// The pairs after 20 questions about four videos, so many at once.
fn beside_a_writing_target(concurrency: &str) -> Vec<(String, u64)> {
    let place = Place::new();
    let file = place.write_jobs("jobs.jsonl", &jobs(&place.videos(&[300; 4], 5)));
    let pair = pair();
    let run = with_pair(&["run", &file, "--results", "out", "--concurrency", concurrency], &pair);
    let done = place.run(&run);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let done = place.run(&["sql", BESIDE_A_WRITING_TARGET, "--format", "json"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let rows: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
    let pairs = |row: &Value| (row["other"].as_str().unwrap().to_owned(), row["pairs"].as_u64().unwrap());
    rows.iter().map(pairs).collect()
}

#[test]
fn while_a_target_writes_other_jobs_read_frames_and_their_drafts_run() {
    let pairs = beside_a_writing_target("8");
    for who in ["frames", "draft"] {
        assert!(pairs.iter().any(|(other, pairs)| other == who && *pairs > 0), "no {who}: {pairs:?}");
    }
    println!("beside a writing target: {pairs:?}");
}

#[test]
fn jobs_one_after_the_other_overlap_nowhere() {
    assert_eq!(beside_a_writing_target("1"), []);
}
