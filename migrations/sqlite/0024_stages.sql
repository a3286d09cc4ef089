-- The time lines of all rounds as rows, so that what ran beside what can be asked across jobs; docs/sql.md describes it.
create view stages as
select
    j.id                                          as job_id,
    j.user_id                                     as id,
    j.batch                                       as batch,
    j.video_uri                                   as video,
    json_extract(j.spec, '$.question.text')       as question,
    json_extract(j.spec, '$.plan.name')           as plan,
    json_extract(j.spec, '$.plan.settings.strategy') as strategy,
    j.status                                      as status,
    r.no                                          as round,
    json_extract(span.value, '$.stage')           as stage,
    json_extract(span.value, '$.turn')            as turn,
    json_extract(r.round, '$.turns[' || json_extract(span.value, '$.turn') || '].role') as role,
    json_extract(span.value, '$.began_ms')        as began_ms,
    json_extract(span.value, '$.ended_ms')        as ended_ms,
    strftime('%Y-%m-%dT%H:%M:%fZ', (json_extract(r.round, '$.zero_unix_ms')
        + json_extract(span.value, '$.began_ms')) / 1000.0, 'unixepoch') as began_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', (json_extract(r.round, '$.zero_unix_ms')
        + json_extract(span.value, '$.ended_ms')) / 1000.0, 'unixepoch') as ended_at,
    j.tenant                                      as tenant
from ledger_rounds r
join ledger_jobs j on j.id = r.job_id
join json_each(r.round, '$.timeline') span;
