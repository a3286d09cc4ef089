//! A process that is killed loses nothing that it was told is committed.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use spectemp_store::Home;

use crate::common::{claim, dir, round, spec};

const DIR: &str = "SPECTEMP_STORE_TEST_DIR";

/// Commits rounds without end and says each one that is committed.
#[tokio::test]
#[ignore = "runs as the child of the test below, which sets the folder"]
async fn child_commits_rounds() {
    let dir = std::env::var(DIR).unwrap();
    let home = Home::open(Path::new(&dir), true).await.unwrap();
    let claimed = claim(&home, "b", 1).await.remove(0);
    for no in claimed.rounds.len() as u32.. {
        home.ledger().checkpoint(&claimed.lease, &round(no)).await.unwrap();
        println!("committed {no}");
        std::io::stdout().flush().unwrap();
    }
}

#[tokio::test]
async fn the_last_committed_round_survives_each_kill() {
    let dir = dir();
    let home = Home::open(dir.path(), false).await.unwrap();
    home.ledger().submit("b", &[spec("q1", "/v/a.mp4")]).await.unwrap();
    home.close().await;
    let mut said = None;
    for kill in 0..5_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child_commits_rounds", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let end = Instant::now() + Duration::from_millis(30 + 17 * u64::from(kill));
        let mut killed = false;
        for line in lines.map_while(Result::ok) {
            // With the test harness's own words before the first one.
            if let Some((_, no)) = line.split_once("committed ") {
                said = Some(no.parse::<u32>().unwrap());
            }
            if !killed && said.is_some() && Instant::now() > end {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");

        let home = Home::open(dir.path(), false).await.unwrap();
        assert_eq!(home.reclaimed().requeued, 1);
        let job = home.ledger().find_job("q1", None).await.unwrap();
        let rounds = home.ledger().rounds(job.id).await.unwrap();
        assert!(rounds.iter().enumerate().all(|(no, round)| round.no as usize == no), "no gap, none twice");
        let said = said.unwrap() as usize;
        assert!(rounds.len() == said + 1 || rounds.len() == said + 2, "{} rounds, said {said}", rounds.len());
        assert_eq!(job.crashes, 0);
        home.close().await;
    }
}
