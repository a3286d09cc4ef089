//! Writes one planned video for other tools: its plan as a JSON line on stderr, its frames as raw RGB on stdout.
//!
//! `cargo run --release -p spectemp-demo --example raw -- SEED SECONDS FPS | ffmpeg -f rawvideo …`

use std::io::Write;

use spectemp_demo::{Archive, ArchiveOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<Vec<u64>, _>>()?;
    let [seed, seconds, fps] = numbers[..] else { return Err("give SEED SECONDS FPS".into()) };
    let options = ArchiveOptions {
        seconds: vec![u32::try_from(seconds)?],
        fps: vec![u32::try_from(fps)?],
        questions_per_video: 1,
    };
    for video in Archive::plan(seed, &options)? {
        writeln!(std::io::stderr(), "{}", serde_json::to_string(&video)?)?;
        let painter = video.painter();
        let mut out = std::io::stdout().lock();
        for number in 0..video.frame_count() {
            out.write_all(&painter.frame(number))?;
        }
    }
    Ok(())
}
