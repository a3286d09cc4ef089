-- Whose a round or an answer is stands in its own row, so that reading many of them does not look up the job of each
-- (figures in docs/adr/0005-ledger-on-postgres.md).
--
-- A trigger fills it in, so that programs which do not know the column write it, too. A job never changes its tenant.
alter table ledger_rounds add column tenant text not null default 'default';
alter table ledger_answers add column tenant text not null default 'default';

create function ledger_set_tenant() returns trigger language plpgsql as $$
begin
    new.tenant := (select j.tenant from ledger_jobs j where j.id = new.job_id);
    return new;
end $$;
create trigger ledger_set_tenant before insert on ledger_rounds
    for each row execute function ledger_set_tenant();
create trigger ledger_set_tenant before insert on ledger_answers
    for each row execute function ledger_set_tenant();

-- Only the rows of other tenants have to be written again.
update ledger_rounds r set tenant = j.tenant from ledger_jobs j where j.id = r.job_id and j.tenant <> 'default';
update ledger_answers a set tenant = j.tenant from ledger_jobs j where j.id = a.job_id and j.tenant <> 'default';

alter policy reader on ledger_rounds using (tenant = (select ledger_reader_tenant()));
alter policy reader on ledger_answers using (tenant = (select ledger_reader_tenant()));
grant select (tenant) on ledger_answers to spectemp_reader;
