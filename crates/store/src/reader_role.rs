//! The role `spectemp_reader`, for people and tools that read the views.
//!
//! A role belongs to the whole server, not to one database: several ledgers on one server share it, and several
//! programs may make it at the same moment. What it may do in a database is in the migrations.

use sqlx::{AssertSqlSafe, PgPool};

use crate::StoreError;

const WHAT: &str = "set up the role spectemp_reader";
/// The server says so, with no code of its own, where two change one role at the same moment.
const AT_ONCE: &str = "tuple concurrently updated";

/// It can log in once it has a password (or the server trusts it). The owner of the ledger becomes a member: only so
/// may he see when one of its backends was started.
const MAKE: &str = "
do $$ begin
    if not exists (select from pg_roles where rolname = 'spectemp_reader') then
        create role spectemp_reader login;
    end if;
exception when duplicate_object or unique_violation then null;
end $$;
do $$ begin
    if not (select rolsuper from pg_roles where rolname = current_user)
       and not pg_has_role(current_user, 'spectemp_reader', 'member') then
        execute format('grant spectemp_reader to %I', current_user);
    end if;
exception when duplicate_object or unique_violation then null;
end $$;";

/// In this database only, and only where they are not set yet: an operator may have chosen others.
const LIMITS: &str = "
do $$
declare
    known text[] := (select setconfig from pg_db_role_setting s join pg_roles r on r.oid = s.setrole
                     where r.rolname = 'spectemp_reader'
                     and s.setdatabase = (select oid from pg_database where datname = current_database()));
    wanted record;
begin
    perform pg_advisory_xact_lock(hashtextextended('spectemp reader role', 0));
    for wanted in select * from (values
        ('statement_timeout', '60s'), ('idle_in_transaction_session_timeout', '60s'),
        ('default_transaction_read_only', 'on')) as v (name, value)
    loop
        if not exists (select from unnest(known) as k where k like wanted.name || '=%') then
            execute format('alter role spectemp_reader in database %I set %s = %L', current_database(), wanted.name, wanted.value);
        end if;
    end loop;
end $$;";

/// Makes the role where it is missing, and sets its password where one is given.
pub(crate) async fn make(pool: &PgPool, password: Option<&str>) -> Result<(), StoreError> {
    run(pool, MAKE.to_owned()).await?;
    let Some(password) = password else { return Ok(()) };
    if password.contains('\0') {
        return Err(StoreError::Database { what: WHAT, cause: "its password holds a NUL".to_owned() });
    }
    // A statement of this kind takes no values, so the text is quoted here; `\` is no escape in a plain literal.
    run(pool, format!("alter role spectemp_reader login password '{}'", password.replace('\'', "''"))).await
}

/// Sets the limits of its sessions in this database.
pub(crate) async fn limit(pool: &PgPool) -> Result<(), StoreError> {
    run(pool, LIMITS.to_owned()).await
}

async fn run(pool: &PgPool, text: String) -> Result<(), StoreError> {
    const TRIES: u32 = 20;
    let mut tries = 1;
    loop {
        match sqlx::raw_sql(AssertSqlSafe(text.clone())).execute(pool).await {
            Ok(_) => return Ok(()),
            Err(error) if tries < TRIES && error.to_string().contains(AT_ONCE) => {
                tries += 1;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(error) => return Err(StoreError::database(WHAT)(error)),
        }
    }
}
