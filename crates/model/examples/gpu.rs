//! The model on a GPU, without the rest of the program: `gpu check DATA_FOLDER` compares with the golden files, `gpu bench MODELS_FOLDER [3b|7b…]`
//! measures with random weights and the tokenizers of the demonstration's models in that folder. Needs a driver and CUDA's libraries, neither FFmpeg nor a database.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spectemp_model::bench::{GpuBenchOptions, GpuLoops, run_gpu};
use spectemp_model::check::{self, CheckOptions};
use spectemp_model::{DTypeChoice, DeviceChoice, LoadOptions, ModelFiles};

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = DeviceChoice::Cuda(0).probe() {
        eprintln!("gpu: found no device: {error}; nothing was run");
        return Ok(ExitCode::from(3));
    }
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["check", data] => check_all(Path::new(data)),
        ["bench", models, sizes @ ..] => bench(Path::new(models), sizes),
        _ => Err("usage: gpu check DATA_FOLDER | gpu bench MODELS_FOLDER [3b|7b…]".into()),
    }
}

/// Each checkpoint of the folder against the golden files beside it, in f32 and in bf16.
fn check_all(data: &Path) -> Outcome {
    let mut passed = true;
    for checkpoint in ["tied", "untied"] {
        let folder = data.join(checkpoint);
        let files = ModelFiles::folder(folder.join("model"));
        let mut goldens: Vec<PathBuf> = std::fs::read_dir(&folder)?
            .map(|entry| Ok(entry?.path()))
            .filter(|path| {
                path.as_ref().is_ok_and(|path| path.extension().is_some_and(|end| end == "safetensors"))
            })
            .collect::<std::io::Result<_>>()?;
        goldens.sort_unstable();
        for dtype in [DTypeChoice::F32, DTypeChoice::Bf16] {
            let load = LoadOptions { device: DeviceChoice::Cuda(0), dtype, ..LoadOptions::default() };
            let report = check::run(&files, &goldens, &CheckOptions { tolerance: None, load })?;
            eprintln!("{checkpoint} in {dtype}: {}", if report.passed { "passed" } else { "FAILED" });
            passed &= report.passed;
            serde_json::to_writer_pretty(std::io::stdout(), &report)?;
        }
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bench(models: &Path, sizes: &[&str]) -> Outcome {
    let sizes = if sizes.is_empty() { &["7b", "3b"] } else { sizes };
    let options = GpuBenchOptions {
        sizes: sizes.iter().map(|size| size.parse()).collect::<Result<_, _>>()?,
        loops: Some(GpuLoops {
            questions: vec![1, 8],
            target: ModelFiles::folder(models.join("target")),
            draft: ModelFiles::folder(models.join("draft")),
        }),
        python: std::env::var_os("SPECTEMP_PEERS_PYTHON").map(PathBuf::from),
        ..GpuBenchOptions::default()
    };
    let report = run_gpu(&options, &mut |line| eprintln!("{line}"))?;
    serde_json::to_writer_pretty(std::io::stdout(), &report)?;
    Ok(ExitCode::SUCCESS)
}
