//! Serving on a socket until told to stop.

use std::{io, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{batches, router, state::AppState};

/// Requests under way have so long to end.
const GRACE: Duration = Duration::from_secs(20);
/// The wait after a connection could not be taken: most often there are too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Answers requests on `listener` until `stop`; then those under way end, streams of events at once. A connection whose
/// client does not finish a request's headers in time is closed, so that idle clients cannot hold all of them.
///
/// Beside that it reads the manifests of batches: its own requests', and those that a server left that ended.
///
/// # Errors
/// None at present: a connection that cannot be taken is tried again.
pub async fn serve(listener: TcpListener, state: AppState, stop: CancellationToken) -> io::Result<()> {
    let headers_within = state.settings.headers_within;
    // Ends with this future.
    let mut background = JoinSet::new();
    background.spawn(batches::read_manifests(state.clone(), stop.clone()));
    let service = TowerToHyperService::new(router(state));
    // HTTP/1 only: to tell the versions apart the first bytes would be waited for without a limit.
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(headers_within);
    let graceful = GracefulShutdown::new();
    while let Some(stream) = next(&listener, &stop).await {
        // An answer is small: waiting for more to send only delays it.
        let _ = stream.set_nodelay(true);
        let connection = server.serve_connection(TokioIo::new(stream), service.clone()).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let ended = async {
        graceful.shutdown().await;
        while background.join_next().await.is_some() {}
    };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!("requests that did not end in time were dropped");
    }
    Ok(())
}

/// The next connection, or none after `stop`.
async fn next(listener: &TcpListener, stop: &CancellationToken) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => return Some(stream),
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}
