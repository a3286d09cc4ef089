//! Where figures come from: the commit and the machine.

use std::process::Command;

/// The commit of the checkout that the command runs in, marked where files differ from it.
pub(super) fn commit() -> Option<String> {
    let output =
        Command::new("git").args(["describe", "--always", "--abbrev=40", "--dirty"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// The processor's name.
pub(super) fn cpu() -> Option<String> {
    field("/proc/cpuinfo", "model name")
}

/// Memory in MiB.
pub(super) fn memory_mib() -> Option<u64> {
    Some(field("/proc/meminfo", "MemTotal")?.split(' ').next()?.parse::<u64>().ok()? / 1024)
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
