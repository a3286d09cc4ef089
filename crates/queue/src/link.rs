//! The connection to Redis, for short commands: it answers or fails within [`TIMEOUT`], and connects again by itself.
//!
//! A small pulse keeps [`Link::state`] true where nothing else is sent. While Redis is known to be down, commands fail
//! at once instead of each waiting for the timeout: an API that cannot ring must not become slow by it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use redis::{
    Client, FromRedisValue, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{DoorbellState, QueueError};

/// Longest wait for an answer of Redis.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How often Redis is asked whether it is there: while it is, and while it is not.
const PULSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(250));

/// A Redis server and a prefix in it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
    _pulse: Arc<DropGuard>,
}

struct Inner {
    client: Client,
    prefix: String,
    manager: ConnectionManager,
    state: Mutex<DoorbellState>,
}

impl Link {
    /// A link that connects when it is first used: Redis need not be there yet. Must be called within a runtime.
    pub(crate) fn new(url: &str, prefix: &str) -> Result<Self, QueueError> {
        let fail = |cause: redis::RedisError| QueueError::Url(cause.to_string());
        let client = Client::open(url).map_err(fail)?;
        // For rediss://. A process that links two providers of cryptography has none by default, and the first
        // handshake would panic; where one was chosen already it stays.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(fail)?;
        let state = Mutex::new(DoorbellState::Up);
        let inner = Arc::new(Inner { client, prefix: prefix.to_owned(), manager, state });
        let stop = CancellationToken::new();
        tokio::spawn(pulse(Arc::downgrade(&inner), stop.clone()));
        Ok(Self { inner, _pulse: Arc::new(stop.drop_guard()) })
    }

    /// The client, for connections of one's own.
    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// `name` under the prefix.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.inner.prefix)
    }

    pub(crate) fn state(&self) -> DoorbellState {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a script; fails at once while Redis is known to be down.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[&str],
        args: &[&[u8]],
    ) -> Result<T, QueueError> {
        if let DoorbellState::Down { error, .. } = self.state() {
            return Err(QueueError::Down(error));
        }
        let mut call = script.prepare_invoke();
        for key in keys {
            call.key(*key);
        }
        for arg in args {
            call.arg(*arg);
        }
        let mut manager = self.inner.manager.clone();
        let answer = tokio::time::timeout(TIMEOUT, call.invoke_async(&mut manager)).await;
        let answer = answer.map_err(|_| no_answer()).and_then(|answer| answer.map_err(QueueError::from));
        self.inner.note(answer.as_ref().err());
        answer
    }
}

impl Inner {
    /// Remembers how the last command went.
    fn note(&self, error: Option<&QueueError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*state, error) {
            (DoorbellState::Up, Some(error)) => {
                let error = match error {
                    QueueError::Down(cause) => cause.clone(),
                    other => other.to_string(),
                };
                tracing::warn!(error, "redis is not reachable");
                *state = DoorbellState::Down { since: SystemTime::now(), error };
            }
            (DoorbellState::Down { since, .. }, None) => {
                let gone_s = since.elapsed().map_or(0.0, |gone| gone.as_secs_f64());
                tracing::info!(gone_s, "redis is back");
                *state = DoorbellState::Up;
            }
            _ => {}
        }
    }

    async fn ping(&self) -> Result<(), QueueError> {
        let mut manager = self.manager.clone();
        let ping = redis::cmd("PING");
        let answer = tokio::time::timeout(TIMEOUT, ping.query_async::<()>(&mut manager)).await;
        answer.map_err(|_| no_answer())?.map_err(QueueError::from)
    }
}

fn no_answer() -> QueueError {
    QueueError::Down(format!("no answer within {} ms", TIMEOUT.as_millis()))
}

/// Asks now and then until the link is gone.
async fn pulse(inner: std::sync::Weak<Inner>, stop: CancellationToken) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let answer = inner.ping().await;
        inner.note(answer.as_ref().err());
        drop(inner);
        let wait = if answer.is_ok() { PULSE.0 } else { PULSE.1 };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}
