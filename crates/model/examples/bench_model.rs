//! `spectemp bench model` without the rest of the program:
//! `bench_model CACHE PYTHON|- THREADS REPEAT DTYPE CONCURRENCY SIZE…`

use std::path::PathBuf;

use spectemp_model::bench::{BenchOptions, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cache, python, threads, repeat, dtype, concurrency, sizes @ ..] = arguments.as_slice() else {
        return Err("usage: bench_model CACHE PYTHON|- THREADS REPEAT DTYPE CONCURRENCY SIZE…".into());
    };
    let options = BenchOptions {
        sizes: sizes.iter().map(|size| size.parse()).collect::<Result<_, _>>()?,
        threads: threads.parse()?,
        repeat: repeat.parse()?,
        dtype: dtype.parse()?,
        concurrency: concurrency.split(',').map(str::parse).collect::<Result<_, _>>()?,
        tokenizer: std::fs::read(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../models/demo/target/tokenizer.json"
        ))?,
        cache: PathBuf::from(cache),
        python: (python != "-").then(|| PathBuf::from(python)),
        llama: None,
    };
    let report = run(&options, &mut |line| eprintln!("{line}"))?;
    serde_json::to_writer_pretty(std::io::stdout(), &report)?;
    Ok(())
}
