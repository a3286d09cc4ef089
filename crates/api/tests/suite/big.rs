//! A large batch takes the memory of a small one.

use futures::StreamExt as _;

use super::support::{job, open};

const LINES: u64 = 100_000;
/// What the process, client and server together, may grow by.
const MOST_GROWTH: u64 = 96 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_100_000_lines_is_streamed() {
    let server = open().await;
    server.lines("/api/v1/batches?name=warm", super::support::lines(2000)).await.expect(201);
    let before = peak();
    let pieces = futures::stream::iter(0..LINES / 100).map(|piece| {
        let line = |no: u64| match no % 1000 {
            999 => "no job\n".to_owned(),
            _ => format!("{}\n", job(&format!("q{no}"))),
        };
        Ok::<String, std::io::Error>((piece * 100..(piece + 1) * 100).map(line).collect())
    });
    let started = std::time::Instant::now();
    let intake =
        server.lines("/api/v1/batches?name=big", reqwest::Body::wrap_stream(pieces)).await.expect(201);
    let took = started.elapsed();
    assert_eq!(intake["lines"], LINES, "{intake}");
    assert_eq!(
        (&intake["submitted"], &intake["bad_lines"]),
        (&(LINES - LINES / 1000).into(), &(LINES / 1000).into())
    );
    assert_eq!(intake["errors"].as_array().unwrap().len(), 100);
    let grown = peak() - before;
    println!(
        "{LINES} lines in {took:?}, {:.0} a second; peak {} MiB, grown by {} MiB",
        LINES as f64 / took.as_secs_f64(),
        peak() >> 20,
        grown >> 20
    );
    assert!(grown < MOST_GROWTH, "the process grew by {grown} bytes");
}

/// The most memory that this process ever had.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
