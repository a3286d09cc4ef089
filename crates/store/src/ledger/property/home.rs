//! Random interleavings of everything that can happen to the ledger of a home, whose process may die at any time: its
//! leases live on as late writers, and another process opens the home.

use std::path::Path;

use proptest::prelude::*;

use super::{
    steps::{Step, of_a_home},
    world::World,
};
use crate::{Home, db::Pool, ledger::claim::ALONE_AFTER};

/// A home's ledger: two deaths beside others, eight alone.
const FATAL: u32 = ALONE_AFTER + 8;

/// A step, or the end of the process.
fn step() -> impl Strategy<Value = Option<Step>> {
    prop_oneof![10 => of_a_home().prop_map(Some), 1 => Just(None)]
}

/// Opens the home anew; its jobs have lost their worker.
async fn restart(home: Home, dir: &Path, world: &mut World) -> Home {
    home.close().await;
    let home = Home::open(dir, false).await.unwrap();
    world.ledger = home.ledger().clone();
    let (_, failed) = world.lose(|_| true);
    assert_eq!(home.reclaimed().dead, failed);
    home
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_its_model(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = crate::test_dir();
            let mut home = Home::open(dir.path(), false).await.unwrap();
            let mut world = World::new(home.ledger().clone(), "batch", FATAL);
            for step in steps {
                match step {
                    Some(step) => world.take(step).await,
                    None => home = restart(home, dir.path(), &mut world).await,
                }
                world.check().await;
            }
            home.close().await;
            sound(dir.path()).await;
        });
    }
}

/// SQLite's own check of the file.
async fn sound(dir: &Path) {
    let home = Home::open(dir, false).await.unwrap();
    let Pool::Sqlite(reads) = &home.ledger().reads else { panic!("a home is a file") };
    let word: String = sqlx::query_scalar("pragma integrity_check").fetch_one(reads).await.unwrap();
    assert_eq!(word, "ok");
    home.close().await;
}
