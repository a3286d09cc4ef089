//! Arguments that several commands share.

use std::path::PathBuf;

use clap::Args;

/// For every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct GlobalArgs {
    /// Folder of ledger, objects and caches [env: SPECTEMP_HOME] [default: the platform's data folder].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) home: Option<PathBuf>,
    /// Settings file [env: SPECTEMP_CONFIG] [default: spectemp/config.toml in the platform's configuration folder].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// More log lines on stderr: -v info, -vv debug. SPECTEMP_LOG takes a filter instead.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
    /// Log lines as JSON.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) log_json: bool,
}

/// Which plan answers, and what is changed in it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PlanArgs {
    /// Named settings: paper16, paper64 or demo [default: paper16].
    #[arg(long, value_name = "NAME")]
    pub(crate) plan: Option<String>,
    /// Override one setting of the plan; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Which models answer, and where they run.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ModelArgs {
    /// Target model: a folder in the Hugging Face layout, a GGUF file in one, hf://owner/name[@revision], or a model
    /// server as openai+http://HOST:PORT/v1#MODEL (docs/servers.md; its key in SPECTEMP_TARGET_API_KEY).
    #[arg(long, value_name = "MODEL")]
    pub(crate) target: Option<String>,
    /// Draft model, likewise; needed by the strategy spectemp.
    #[arg(long, value_name = "MODEL")]
    pub(crate) draft: Option<String>,
    /// Who guesses what the target writes next, to decode several tokens at once: off, lookup (the words so far), sparse
    /// (the target over fewer visual tokens), draft or draft-density (the draft model, over tokens chosen by attention or by
    /// likeness). The text stays the same [default: off].
    #[arg(long, value_name = "WHO")]
    pub(crate) speculate: Option<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Where a model runs.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DeviceArgs {
    /// cpu, or cuda[:N] in a build that has it [default: cpu].
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// What weights are held as: f32, bf16, or on the CPU the language model's in blocks of 8 or 4 bits, q8_0 or q4k [default: f32].
    #[arg(long, value_name = "DTYPE")]
    pub(crate) dtype: Option<String>,
    /// Threads of the CPU kernels [default: all cores].
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Memory for the keys and values of running and kept contexts, such as 512M or 4G; what needs more is refused,
    /// what does not fit now waits [default: a quarter of the free memory, at least 256M].
    #[arg(long, value_name = "SIZE")]
    pub(crate) kv_cache: Option<String>,
}
