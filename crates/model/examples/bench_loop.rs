//! `spectemp bench loop` without the rest of the program: `bench_loop CACHE PYTHON|- THREADS REPEAT QUESTIONS`

use std::path::{Path, PathBuf};

use spectemp_model::ModelFiles;
use spectemp_model::bench::{LoopOptions, run_loops};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cache, python, threads, repeat, questions] = arguments.as_slice() else {
        return Err("usage: bench_loop CACHE PYTHON|- THREADS REPEAT QUESTIONS".into());
    };
    let pair = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let options = LoopOptions {
        questions: questions.split(',').map(str::parse).collect::<Result<_, _>>()?,
        threads: threads.parse()?,
        repeat: repeat.parse()?,
        cache: PathBuf::from(cache),
        target: ModelFiles::folder(pair.join("target")),
        draft: ModelFiles::folder(pair.join("draft")),
        python: (python != "-").then(|| PathBuf::from(python)),
    };
    let report = run_loops(&options, &mut |line| eprintln!("{line}"))?;
    serde_json::to_writer_pretty(std::io::stdout(), &report)?;
    Ok(())
}
