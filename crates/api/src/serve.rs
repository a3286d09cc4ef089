//! Serving on a socket until told to stop.

use std::{io, time::Duration};

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{router, state::AppState};

/// Requests under way have so long to end.
const GRACE: Duration = Duration::from_secs(20);

/// Answers requests on `listener` until `stop`; then those under way end, streams of events at once.
///
/// # Errors
/// The socket fails.
pub async fn serve(listener: TcpListener, state: AppState, stop: CancellationToken) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // An answer is small: waiting for more to send only delays it.
        let _ = stream.set_nodelay(true);
    });
    let graceful =
        axum::serve(listener, router(state)).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = async { graceful.await } => served,
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("requests that did not end in time were dropped");
            Ok(())
        }
    }
}
