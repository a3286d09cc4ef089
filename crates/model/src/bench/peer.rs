//! The other side: a Python process with HF transformers, one request per line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Work;
use super::report::Run;
use crate::ModelError;

/// The peer of the whole loop.
pub(super) const LOOP: &str = include_str!("../../../../bench/peers/loop_hf.py");
/// The second peer of prefill and decode.
pub(super) const LLAMA: &str = include_str!("../../../../bench/peers/llama_cpp.py");
/// The peer of the single works.
pub(super) const MODEL: &str = include_str!("../../../../bench/peers/model_hf.py");

pub(super) struct Peer {
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(super) versions: String,
}

#[derive(Deserialize)]
struct Ready {
    ready: String,
    threads: usize,
}

impl Peer {
    /// Starts a script, which is given folders and the number of threads, on the CPU in f32.
    pub(super) fn start(
        python: &Path,
        script: &'static str,
        folders: &[&Path],
        threads: usize,
    ) -> Result<Self, ModelError> {
        Self::start_on(python, script, folders, (threads, "cpu", "f32"))
    }

    /// The same on a device, as PyTorch names it, in f32 or bf16.
    pub(super) fn start_on(
        python: &Path,
        script: &'static str,
        folders: &[&Path],
        (threads, device, dtype): (usize, &str, &str),
    ) -> Result<Self, ModelError> {
        let mut process = Command::new(python)
            .args(["-c", script])
            .args(folders)
            .args([&threads.to_string(), device, dtype])
            .env("OMP_NUM_THREADS", threads.to_string())
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| ModelError::Read { path: python.to_owned(), source })?;
        let (requests, answers) = (process.stdin.take(), process.stdout.take());
        let answers = answers.ok_or_else(|| failed("gave no output"))?;
        let mut peer = Self { process, requests, answers: BufReader::new(answers), versions: String::new() };
        let Ready { ready, threads: used } = peer.answer()?;
        if used != threads {
            return Err(failed(&format!("runs {used} threads instead of {threads}")));
        }
        peer.versions = ready;
        Ok(peer)
    }

    /// Does the same work; questions have the prompts of `ours`.
    pub(super) fn run(&mut self, work: &Work, ours: &Run) -> Result<Run, ModelError> {
        let mut request = serde_json::to_value(work).map_err(|error| failed(&error.to_string()))?;
        if let Work::Questions { .. } = work {
            request["ids"] = serde_json::json!(ours.prompts);
        }
        self.ask(&request)
    }

    /// One line there, one back.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, request: &serde_json::Value) -> Result<T, ModelError> {
        if let Some(requests) = &mut self.requests {
            let sent = writeln!(requests, "{request}").and_then(|()| requests.flush());
            sent.map_err(|error| failed(&error.to_string()))?;
        }
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T, ModelError> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).map_err(|error| failed(&error.to_string()))?;
        if read == 0 {
            return Err(failed("ended; what it said is above"));
        }
        serde_json::from_str(&line).map_err(|error| failed(&format!("{error}: {line}")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its loop ends with its input.
        drop(self.requests.take());
        let _ = self.process.wait();
    }
}

fn failed(reason: &str) -> ModelError {
    ModelError::Source { model: "the peer (bench/peers)".to_owned(), reason: reason.to_owned() }
}
