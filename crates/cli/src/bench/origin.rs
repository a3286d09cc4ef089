//! Where figures come from: the time, the commit, the build and the machine.

use std::{process::Command, time::SystemTime};

use serde::Serialize;

/// Stands at the top of every file of figures.
#[derive(Debug, Serialize)]
pub(crate) struct Origin {
    /// When they were made, seconds since 1970.
    unix_seconds: u64,
    /// The commit of the checkout that the command runs in, marked where files differ from it.
    commit: Option<String>,
    /// `dev` or `release`.
    profile: &'static str,
    machine: Machine,
}

#[derive(Debug, Serialize)]
struct Machine {
    /// The processor's name.
    cpu: Option<String>,
    cores: usize,
    memory_mib: Option<u64>,
    system: &'static str,
}

impl Origin {
    /// Of figures that are made now, here.
    pub(crate) fn here() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            unix_seconds: now.map_or(0, |since| since.as_secs()),
            commit: commit(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" },
            machine: Machine {
                cpu: field("/proc/cpuinfo", "model name"),
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                memory_mib: memory_mib(),
                system: std::env::consts::OS,
            },
        }
    }
}

fn commit() -> Option<String> {
    let output =
        Command::new("git").args(["describe", "--always", "--abbrev=40", "--dirty"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn memory_mib() -> Option<u64> {
    Some(field("/proc/meminfo", "MemTotal")?.split(' ').next()?.parse::<u64>().ok()? / 1024)
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
