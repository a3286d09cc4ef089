-- The views that people and tools read; docs/sql.md describes every column. Columns are added, never renamed.

create view answers as
select
    j.id                                          as job_id,
    j.user_id                                     as id,
    j.batch                                       as batch,
    j.video_uri                                   as video,
    json_extract(a.video, '$.etag')               as video_etag,
    json_extract(a.video, '$.duration_s')         as video_s,
    json_extract(j.spec, '$.question.text')       as question,
    json_extract(j.spec, '$.question.choices')    as choices,
    a.answer                                      as answer,
    a.choice                                      as choice,
    a.confidence                                  as confidence,
    json_extract(j.spec, '$.plan.name')           as plan,
    json_extract(j.spec, '$.plan.settings.strategy') as strategy,
    json_extract(j.spec, '$.plan.settings')       as settings,
    json_extract(a.evidence, '$[0].start_s')      as start_s,
    json_extract(a.evidence, '$[0].end_s')        as end_s,
    json_extract(a.evidence, '$[0].frames_s')     as frames_s,
    json_extract(a.totals, '$.rounds')            as rounds,
    json_extract(a.totals, '$.target_frames')     as target_frames,
    json_extract(a.totals, '$.draft_frames')      as draft_frames,
    json_extract(a.totals, '$.tokens.text')       as text_tokens,
    json_extract(a.totals, '$.tokens.visual')     as visual_tokens,
    json_extract(a.totals, '$.tokens.reused')     as reused_tokens,
    json_extract(a.totals, '$.tokens.generated')  as generated_tokens,
    json_extract(a.totals, '$.io.requests')       as requests,
    json_extract(a.totals, '$.io.bytes')          as bytes,
    json_extract(a.totals, '$.io.decoded_frames') as decoded_frames,
    json_extract(a.totals, '$.times.fetch_ms')    as fetch_ms,
    json_extract(a.totals, '$.times.decode_ms')   as decode_ms,
    json_extract(a.totals, '$.times.vision_ms')   as vision_ms,
    json_extract(a.totals, '$.times.prefill_ms')  as prefill_ms,
    json_extract(a.totals, '$.times.generate_ms') as generate_ms,
    json_extract(a.target, '$.name')              as target,
    json_extract(a.target, '$.revision')          as target_revision,
    json_extract(a.draft, '$.name')               as draft,
    json_extract(a.draft, '$.revision')           as draft_revision,
    j.attempts                                    as attempts,
    a.trace                                       as trace,
    strftime('%Y-%m-%dT%H:%M:%fZ', j.created_at / 1000.0, 'unixepoch')  as created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', a.answered_at / 1000.0, 'unixepoch') as answered_at
from ledger_answers a
join ledger_jobs j on j.id = a.job_id;

create view failures as
select
    j.id                                          as job_id,
    j.user_id                                     as id,
    j.batch                                       as batch,
    j.video_uri                                   as video,
    json_extract(j.spec, '$.question.text')       as question,
    json_extract(j.spec, '$.question.choices')    as choices,
    j.error                                       as error,
    j.permanent                                   as permanent,
    (select count(*) from ledger_rounds r where r.job_id = j.id) as rounds,
    j.attempts                                    as attempts,
    j.crashes                                     as crashes,
    json_extract(j.spec, '$.plan.name')           as plan,
    json_extract(j.spec, '$.plan.settings.strategy') as strategy,
    json_extract(j.spec, '$.plan.settings')       as settings,
    strftime('%Y-%m-%dT%H:%M:%fZ', j.created_at / 1000.0, 'unixepoch') as created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', j.ended_at / 1000.0, 'unixepoch')   as failed_at
from ledger_jobs j
where j.status = 'failed';

-- One row per frame that an answer rests on.
create view evidence as
select
    j.id                                          as job_id,
    j.user_id                                     as id,
    j.batch                                       as batch,
    j.video_uri                                   as video,
    json_extract(a.video, '$.etag')               as video_etag,
    json_extract(j.spec, '$.question.text')       as question,
    a.answer                                      as answer,
    a.choice                                      as choice,
    a.confidence                                  as confidence,
    span.key                                      as span,
    json_extract(span.value, '$.start_s')         as start_s,
    json_extract(span.value, '$.end_s')           as end_s,
    frame.key                                     as frame,
    frame.value                                   as pts_s
from ledger_answers a
join ledger_jobs j on j.id = a.job_id
join json_each(a.evidence) span
join json_each(span.value, '$.frames_s') frame;

create view rounds as
select
    j.id                                          as job_id,
    j.user_id                                     as id,
    j.batch                                       as batch,
    j.video_uri                                   as video,
    json_extract(j.spec, '$.question.text')       as question,
    json_extract(j.spec, '$.plan.name')           as plan,
    json_extract(j.spec, '$.plan.settings.strategy') as strategy,
    json_extract(j.spec, '$.plan.settings')       as settings,
    j.status                                      as status,
    r.no                                          as round,
    r.start_s                                     as start_s,
    r.end_s                                       as end_s,
    r.chosen_by                                   as chosen_by,
    r.frames                                      as target_frames,
    r.draft_frames                                as draft_frames,
    r.dense_fps                                   as dense_fps,
    r.verdict                                     as verdict,
    r.next_start_s                                as next_start_s,
    r.next_end_s                                  as next_end_s,
    r.fallbacks                                   as fallbacks,
    r.text_tokens                                 as text_tokens,
    r.visual_tokens                               as visual_tokens,
    r.reused_tokens                               as reused_tokens,
    r.generated_tokens                            as generated_tokens,
    r.requests                                    as requests,
    r.bytes                                       as bytes,
    r.decoded_frames                              as decoded_frames,
    r.fetch_ms                                    as fetch_ms,
    r.decode_ms                                   as decode_ms,
    r.vision_ms                                   as vision_ms,
    r.prefill_ms                                  as prefill_ms,
    r.generate_ms                                 as generate_ms,
    r.round                                       as json,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.committed_at / 1000.0, 'unixepoch') as committed_at
from ledger_rounds r
join ledger_jobs j on j.id = r.job_id;

create view videos as
select
    v.id                                          as video_id,
    v.uri                                         as video,
    nullif(v.etag, '')                            as etag,
    v.bytes                                       as bytes,
    v.duration_s                                  as video_s,
    v.probe                                       as probe,
    length(v.record)                              as index_bytes,
    (select count(*) from ledger_jobs j where j.video_uri = v.uri) as jobs,
    strftime('%Y-%m-%dT%H:%M:%fZ', v.touched_at / 1000.0, 'unixepoch') as seen_at
from ledger_videos v;
