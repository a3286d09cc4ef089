//! A Postgres and a Redis of one test's own, which it may crash.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
};

/// Stopped and removed when dropped.
pub(crate) struct Servers {
    folder: String,
    pub(crate) postgres: String,
    pub(crate) redis: String,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/services.sh")
}

impl Servers {
    pub(crate) fn start() -> Self {
        let output = Command::new(script()).args(["start", "durable"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let exported = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let mut set: HashMap<&str, &str> = exported.collect();
        let mut take = |name| set.remove(name).unwrap().to_owned();
        Self {
            folder: take("SPECTEMP_TEST_SERVICES"),
            postgres: take("SPECTEMP_TEST_POSTGRES"),
            redis: take("SPECTEMP_TEST_REDIS"),
        }
    }

    /// Stops `redis` or `postgres` as a crash would, and starts it again.
    pub(crate) fn restart(&self, which: &str) {
        self.script(&["restart", which]);
    }

    /// Redis forgets everything.
    pub(crate) fn flush_redis(&self) {
        let output = Command::new("redis-cli").args(["-u", &self.redis, "flushall"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn script(&self, args: &[&str]) {
        let output =
            Command::new(script()).args(args).env("SPECTEMP_TEST_SERVICES", &self.folder).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.script(&["stop"]);
    }
}
