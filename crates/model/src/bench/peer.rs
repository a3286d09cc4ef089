//! The other side: a Python process with HF transformers, one request per line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Run, Work};
use crate::ModelError;

const SCRIPT: &str = include_str!("../../../../bench/peers/model_hf.py");

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
    pub(super) fn start(python: &Path, folder: &Path, threads: usize) -> Result<Self, ModelError> {
        let mut process = Command::new(python)
            .args(["-c", SCRIPT])
            .arg(folder)
            .arg(threads.to_string())
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

    pub(super) fn run(&mut self, work: &Work) -> Result<Run, ModelError> {
        let request = serde_json::to_string(work).map_err(|error| failed(&error.to_string()))?;
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
    ModelError::Source { model: "bench/peers/model_hf.py".to_owned(), reason: reason.to_owned() }
}
