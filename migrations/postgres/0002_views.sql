-- The views that people and tools read; docs/sql.md describes every column. Columns are added, never renamed.
-- `security_invoker`: who reads a view reads its tables as himself, so their row-level security holds.

create view answers with (security_invoker = true) as
select
    j.id                                                       as job_id,
    j.user_id                                                  as id,
    j.batch                                                    as batch,
    j.video_uri                                                as video,
    a.video ->> 'etag'                                         as video_etag,
    cast(a.video ->> 'duration_s' as double precision)         as video_s,
    j.spec -> 'question' ->> 'text'                            as question,
    j.spec -> 'question' -> 'choices'                          as choices,
    a.answer                                                   as answer,
    a.choice                                                   as choice,
    a.confidence                                               as confidence,
    j.spec -> 'plan' ->> 'name'                                as plan,
    j.spec -> 'plan' -> 'settings' ->> 'strategy'              as strategy,
    j.spec -> 'plan' -> 'settings'                             as settings,
    cast(a.evidence -> 0 ->> 'start_s' as double precision)    as start_s,
    cast(a.evidence -> 0 ->> 'end_s' as double precision)      as end_s,
    a.evidence -> 0 -> 'frames_s'                              as frames_s,
    cast(a.totals ->> 'rounds' as bigint)                      as rounds,
    cast(a.totals ->> 'target_frames' as bigint)               as target_frames,
    cast(a.totals ->> 'draft_frames' as bigint)                as draft_frames,
    cast(a.totals -> 'tokens' ->> 'text' as bigint)            as text_tokens,
    cast(a.totals -> 'tokens' ->> 'visual' as bigint)          as visual_tokens,
    cast(a.totals -> 'tokens' ->> 'reused' as bigint)          as reused_tokens,
    cast(a.totals -> 'tokens' ->> 'generated' as bigint)       as generated_tokens,
    cast(a.totals -> 'io' ->> 'requests' as bigint)            as requests,
    cast(a.totals -> 'io' ->> 'bytes' as bigint)               as bytes,
    cast(a.totals -> 'io' ->> 'decoded_frames' as bigint)      as decoded_frames,
    cast(a.totals -> 'times' ->> 'fetch_ms' as double precision) as fetch_ms,
    cast(a.totals -> 'times' ->> 'decode_ms' as double precision) as decode_ms,
    cast(a.totals -> 'times' ->> 'vision_ms' as double precision) as vision_ms,
    cast(a.totals -> 'times' ->> 'prefill_ms' as double precision) as prefill_ms,
    cast(a.totals -> 'times' ->> 'generate_ms' as double precision) as generate_ms,
    a.target ->> 'name'                                        as target,
    a.target ->> 'revision'                                    as target_revision,
    a.draft ->> 'name'                                         as draft,
    a.draft ->> 'revision'                                     as draft_revision,
    j.attempts                                                 as attempts,
    a.trace                                                    as trace,
    to_timestamp(j.created_at / 1000.0)                        as created_at,
    to_timestamp(a.answered_at / 1000.0)                       as answered_at,
    j.tenant                                                   as tenant
from ledger_answers a
join ledger_jobs j on j.id = a.job_id;

create view failures with (security_invoker = true) as
select
    j.id                                                       as job_id,
    j.user_id                                                  as id,
    j.batch                                                    as batch,
    j.video_uri                                                as video,
    j.spec -> 'question' ->> 'text'                            as question,
    j.spec -> 'question' -> 'choices'                          as choices,
    j.error                                                    as error,
    cast(coalesce(j.permanent, false) as integer)              as permanent,
    (select count(*) from ledger_rounds r where r.job_id = j.id) as rounds,
    j.attempts                                                 as attempts,
    j.crashes                                                  as crashes,
    j.spec -> 'plan' ->> 'name'                                as plan,
    j.spec -> 'plan' -> 'settings' ->> 'strategy'              as strategy,
    j.spec -> 'plan' -> 'settings'                             as settings,
    to_timestamp(j.created_at / 1000.0)                        as created_at,
    to_timestamp(j.ended_at / 1000.0)                          as failed_at,
    j.tenant                                                   as tenant
from ledger_jobs j
where j.status = 'failed';

create view evidence with (security_invoker = true) as
select
    j.id                                                       as job_id,
    j.user_id                                                  as id,
    j.batch                                                    as batch,
    j.video_uri                                                as video,
    a.video ->> 'etag'                                         as video_etag,
    j.spec -> 'question' ->> 'text'                            as question,
    a.answer                                                   as answer,
    a.choice                                                   as choice,
    a.confidence                                               as confidence,
    (span.no - 1)                                              as span,
    cast(span.value ->> 'start_s' as double precision)         as start_s,
    cast(span.value ->> 'end_s' as double precision)           as end_s,
    (frame.no - 1)                                             as frame,
    cast(frame.value as double precision)                      as pts_s,
    j.tenant                                                   as tenant
from ledger_answers a
join ledger_jobs j on j.id = a.job_id
cross join lateral jsonb_array_elements(a.evidence) with ordinality as span (value, no)
cross join lateral jsonb_array_elements(span.value -> 'frames_s') with ordinality as frame (value, no);

create view rounds with (security_invoker = true) as
select
    j.id                                                       as job_id,
    j.user_id                                                  as id,
    j.batch                                                    as batch,
    j.video_uri                                                as video,
    j.spec -> 'question' ->> 'text'                            as question,
    j.spec -> 'plan' ->> 'name'                                as plan,
    j.spec -> 'plan' -> 'settings' ->> 'strategy'              as strategy,
    j.spec -> 'plan' -> 'settings'                             as settings,
    j.status                                                   as status,
    r.no                                                       as round,
    r.start_s                                                  as start_s,
    r.end_s                                                    as end_s,
    r.chosen_by                                                as chosen_by,
    r.frames                                                   as target_frames,
    r.draft_frames                                             as draft_frames,
    r.dense_fps                                                as dense_fps,
    r.verdict                                                  as verdict,
    r.next_start_s                                             as next_start_s,
    r.next_end_s                                               as next_end_s,
    r.fallbacks                                                as fallbacks,
    r.text_tokens                                              as text_tokens,
    r.visual_tokens                                            as visual_tokens,
    r.reused_tokens                                            as reused_tokens,
    r.generated_tokens                                         as generated_tokens,
    r.requests                                                 as requests,
    r.bytes                                                    as bytes,
    r.decoded_frames                                           as decoded_frames,
    r.fetch_ms                                                 as fetch_ms,
    r.decode_ms                                                as decode_ms,
    r.vision_ms                                                as vision_ms,
    r.prefill_ms                                               as prefill_ms,
    r.generate_ms                                              as generate_ms,
    r.round                                                    as json,
    to_timestamp(r.committed_at / 1000.0)                      as committed_at,
    j.tenant                                                   as tenant
from ledger_rounds r
join ledger_jobs j on j.id = r.job_id;

create view videos with (security_invoker = true) as
select
    v.id                                                       as video_id,
    v.uri                                                      as video,
    nullif(v.etag, '')                                         as etag,
    v.bytes                                                    as bytes,
    v.duration_s                                               as video_s,
    v.probe                                                    as probe,
    length(v.record)                                           as index_bytes,
    coalesce(j.jobs, 0)                                        as jobs,
    to_timestamp(v.touched_at / 1000.0)                        as seen_at,
    j.tenant                                                   as tenant
from ledger_videos v
left join lateral (
    select k.tenant, count(*) as jobs from ledger_jobs k where k.video_uri = v.uri group by k.tenant
) j on true;

create view jobs_by_state with (security_invoker = true) as
select batch, status as state, cast(sum(jobs) as bigint) as jobs, tenant
from ledger_counts
group by tenant, batch, status
having sum(jobs) <> 0;
