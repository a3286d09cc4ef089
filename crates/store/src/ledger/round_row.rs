//! A round as a row: the whole of it as JSON, and columns for questions in SQL.

use spectemp_types::{Round, Verdict};

use super::Lease;
use crate::{
    StoreError,
    db::{Pool, Value, query},
};

/// Inserts `round` if the lease holds and the round is the next one; false where it was refused.
pub(super) async fn insert_round(pool: &Pool, lease: &Lease, round: &Round) -> Result<bool, StoreError> {
    let (verdict, next) = match &round.verdict {
        Verdict::Answer { .. } => ("answer", None),
        Verdict::Segment { span } => ("segment", Some(*span)),
        Verdict::Nothing => ("nothing", None),
    };
    let tokens = round.tokens();
    let inserted = query("commit a round", INSERT)
        .bind(lease.job())
        .bind(lease.epoch())
        .bind(round.no)
        .bind(Value::json("round", round)?)
        .bind(round.span.start_s)
        .bind(round.span.end_s)
        .bind(word(&round.chosen_by)?)
        .bind(round.frames.len())
        .bind(round.dense.as_ref().map_or(0, |dense| dense.frames.len()))
        .bind(round.dense.as_ref().map(|dense| dense.fps))
        .bind(verdict)
        .bind(next.map(|span| span.start_s))
        .bind(next.map(|span| span.end_s))
        .bind(round.fallbacks.len())
        .bind(tokens.text)
        .bind(tokens.visual)
        .bind(tokens.reused)
        .bind(tokens.generated)
        .bind(round.io.requests)
        .bind(round.io.bytes)
        .bind(round.io.decoded_frames)
        .bind(round.times.fetch_ms)
        .bind(round.times.decode_ms)
        .bind(round.times.vision_ms)
        .bind(round.times.prefill_ms)
        .bind(round.times.generate_ms)
        .execute(pool)
        .await?;
    Ok(inserted == 1)
}

/// The guard is part of the statement: the lease must hold, and the number must be the count of committed rounds. The
/// job's row is locked until the round is in, so that nobody takes the job over in between and misses it.
const INSERT: &str = "\
    insert into ledger_rounds \
    (job_id, epoch, no, round, start_s, end_s, chosen_by, frames, draft_frames, dense_fps, verdict, next_start_s, next_end_s, \
     fallbacks, text_tokens, visual_tokens, reused_tokens, generated_tokens, requests, bytes, decoded_frames, \
     fetch_ms, decode_ms, vision_ms, prefill_ms, generate_ms, committed_at) \
    select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, {now} \
    from ledger_jobs j where j.id = $1 and j.status = 'running' and j.epoch = $2 \
    and (select count(*) from ledger_rounds where job_id = $1) = $3 {lock_job} \
    on conflict (job_id, no) do nothing";

/// The word that an enum has in JSON.
fn word(value: &impl serde::Serialize) -> Result<String, StoreError> {
    match serde_json::to_value(value).map_err(StoreError::corrupt("round"))? {
        serde_json::Value::String(word) => Ok(word),
        other => Ok(other.to_string()),
    }
}
