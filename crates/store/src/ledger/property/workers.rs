//! Random interleavings of what several workers, clients and a sweep do to a ledger, over both databases: submission (again
//! and again), claims, rounds, answers, faults, leases that run out under a worker that is dead or only late,
//! cancellation, retry.

use proptest::prelude::*;
use spectemp_types::JobId;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{steps::of_workers, world::World};
use crate::{DEFAULT_TENANT, Ledger, LedgerOptions, MigrateOptions, ledger::claim::ALONE_AFTER, migrate};

/// A cluster's ledger: two deaths beside others, three alone.
const FATAL: u32 = ALONE_AFTER + 3;

/// Runs random steps over `ledger`, each run in a batch of its own.
fn run(runtime: &tokio::runtime::Runtime, ledger: &Ledger) {
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(of_workers(), 1..60))| {
        runtime.block_on(async {
            let batch = JobId::new().to_string();
            let mut world = World::new(ledger.clone(), batch, FATAL);
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
            // The next run's sweeps find nothing of this one.
            ledger.cancel_batch(DEFAULT_TENANT, &world.batch).await.unwrap();
        });
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn workers_on_sqlite() {
    let (runtime, dir) = (runtime(), crate::test_dir());
    let ledger =
        runtime.block_on(Ledger::open(&dir.path().join("ledger.sqlite"), &LedgerOptions::default())).unwrap();
    run(&runtime, &ledger);
    runtime.block_on(ledger.close());
}

#[test]
fn workers_on_postgres() {
    let server = std::env::var("SPECTEMP_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "SPECTEMP_TEST_POSTGRES is not set: run `make test`, or `eval \"$(scripts/services.sh start)\"`"
        )
    });
    let runtime = runtime();
    let name = format!("property_{}", JobId::new().as_uuid().simple());
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    let ledger = runtime.block_on(async {
        let mut connection = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
        migrate(&url, &MigrateOptions::default()).await.unwrap();
        Ledger::connect(&url, &LedgerOptions::default()).await.unwrap()
    });
    run(&runtime, &ledger);
    runtime.block_on(ledger.close());
}
