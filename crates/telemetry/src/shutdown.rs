//! Two steps to the end: the first SIGINT or SIGTERM asks to finish the running round, the second one to stop at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a running command watches.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: begin nothing new.
    pub soft: CancellationToken,
    /// Cancelled by the second signal: stop where you are.
    pub hard: CancellationToken,
}

/// Listens for SIGINT and SIGTERM from now on. `on_first` runs at the first one, to tell the user.
///
/// # Errors
/// The runtime cannot register a signal handler.
pub fn shutdown_on_signals(on_first: impl FnOnce() + Send + 'static) -> std::io::Result<Shutdown> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = Shutdown::default();
    let watched = shutdown.clone();
    tokio::spawn(async move {
        let mut on_first = Some(on_first);
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match on_first.take() {
                Some(tell) => {
                    tell();
                    watched.soft.cancel();
                }
                None => watched.hard.cancel(),
            }
        }
    });
    Ok(shutdown)
}
