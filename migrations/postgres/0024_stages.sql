-- The time lines of all rounds as rows, so that what ran beside what can be asked across jobs; docs/sql.md describes it.
create view stages with (security_invoker = true) as
select
    j.id                                                       as job_id,
    j.user_id                                                  as id,
    j.batch                                                    as batch,
    j.video_uri                                                as video,
    j.spec -> 'question' ->> 'text'                            as question,
    j.spec -> 'plan' ->> 'name'                                as plan,
    j.spec -> 'plan' -> 'settings' ->> 'strategy'              as strategy,
    j.status                                                   as status,
    r.no                                                       as round,
    span.value ->> 'stage'                                     as stage,
    cast(span.value ->> 'turn' as bigint)                      as turn,
    r.round -> 'turns' -> cast(span.value ->> 'turn' as integer) ->> 'role' as role,
    cast(span.value ->> 'began_ms' as double precision)        as began_ms,
    cast(span.value ->> 'ended_ms' as double precision)        as ended_ms,
    to_timestamp((cast(r.round ->> 'zero_unix_ms' as double precision)
        + cast(span.value ->> 'began_ms' as double precision)) / 1000.0) as began_at,
    to_timestamp((cast(r.round ->> 'zero_unix_ms' as double precision)
        + cast(span.value ->> 'ended_ms' as double precision)) / 1000.0) as ended_at,
    j.tenant                                                   as tenant
from ledger_rounds r
join ledger_jobs j on j.id = r.job_id
cross join lateral json_array_elements(r.round -> 'timeline') as span (value);

grant select on stages to spectemp_reader;
