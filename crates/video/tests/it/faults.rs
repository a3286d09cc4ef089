//! Servers that refuse, lie, stall or break off: an error that names object and cause, within the time allowed, and
//! never with the signature of the URL.

use std::time::{Duration, Instant};

use axum::http::Method;
use spectemp_engine::{FrameError, FrameMode, FrameSource};
use spectemp_video::{OpenOptions, Video, VideoError};

use crate::{
    clips::{H264_FRONT, NOISY_END},
    server::{Fault, Server},
    support::{exact, request, within},
};

fn options() -> OpenOptions {
    OpenOptions { timeout: Duration::from_millis(800), ..OpenOptions::default() }
}

/// Opens at a server with a fault from the start.
fn refused(fault: Fault) -> VideoError {
    let started = Instant::now();
    let error = within(async {
        let server = Server::start(H264_FRONT.bytes()).await;
        server.set(fault);
        Video::open(server.object(), options(), None)
            .await
            .map(|_| panic!("{fault:?} was not noticed"))
            .unwrap_err()
    });
    check_message(&error.to_string());
    assert!(started.elapsed() < Duration::from_secs(12), "{fault:?} took {:?}", started.elapsed());
    error
}

fn check_message(message: &str) {
    assert!(message.contains("/clip.mp4"), "{message}");
    assert!(!message.contains("secret") && !message.contains("signature"), "{message}");
}

/// Breaks the server once the video is open.
fn broken_later(fault: Fault) -> FrameError {
    let started = Instant::now();
    let error = within(async {
        let server = Server::start(NOISY_END.bytes()).await;
        let video = Video::open(server.object(), options(), None).await.unwrap();
        server.set(fault);
        exact(&video, &[2.0, 9.0]).await.map(|_| panic!("{fault:?} was not noticed")).unwrap_err()
    });
    check_message(&error.to_string());
    let refused = matches!(error, FrameError::Permanent(_));
    assert!(refused || error.to_string().contains("byte"), "no position: {error}");
    assert!(started.elapsed() < Duration::from_secs(12), "{fault:?} took {:?}", started.elapsed());
    error
}

#[test]
fn not_found() {
    assert!(matches!(refused(Fault::Status(404)), VideoError::Missing { .. }));
}

#[test]
fn forbidden() {
    assert!(matches!(refused(Fault::Status(403)), VideoError::Forbidden { .. }));
    assert!(matches!(refused(Fault::Status(401)), VideoError::Forbidden { .. }));
}

#[test]
fn server_error() {
    let error = refused(Fault::Status(500));
    assert!(matches!(error, VideoError::Store { .. }), "{error}");
    assert!(error.to_string().contains("500"), "{error}");
}

#[test]
fn no_ranges() {
    assert!(matches!(refused(Fault::NoRanges), VideoError::NoRanges { .. }));
}

#[test]
fn connection_cut_in_the_middle() {
    assert!(matches!(refused(Fault::Cut), VideoError::Store { .. }));
    assert!(matches!(broken_later(Fault::Cut), FrameError::Transient(_)));
}

#[test]
fn slow_server() {
    assert!(matches!(refused(Fault::Slow(Duration::from_secs(100))), VideoError::Timeout { .. }));
    assert!(matches!(broken_later(Fault::Slow(Duration::from_secs(100))), FrameError::Transient(_)));
}

#[test]
fn stalled_server() {
    let error = refused(Fault::Stall);
    assert!(matches!(error, VideoError::Timeout { .. }), "{error}");
    assert!(matches!(broken_later(Fault::Stall), FrameError::Transient(_)));
}

#[test]
fn access_withdrawn() {
    let error = broken_later(Fault::Status(403));
    assert!(matches!(error, FrameError::Permanent(_)), "{error}");
    let text = error.to_string();
    for part in ["127.0.0.1", "refuses access", "asked for byte ", "403"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn object_replaced_while_it_is_read() {
    let error = broken_later(Fault::Changed);
    assert!(error.to_string().contains("changed"), "{error}");
}

#[test]
fn slow_but_steady_is_no_timeout() {
    within(async {
        let server = Server::start(H264_FRONT.bytes()).await;
        server.set(Fault::Slow(Duration::from_millis(100)));
        let video = Video::open(server.object(), options(), None).await.unwrap();
        assert_eq!(exact(&video, &[0.5, 2.5]).await.unwrap().frames.len(), 2);
    });
}

#[test]
fn presigned_urls_see_ranged_gets_only() {
    within(async {
        let server = Server::start(H264_FRONT.bytes()).await;
        let video = Video::open(server.object(), options(), None).await.unwrap();
        exact(&video, &[1.0]).await.unwrap();
        assert!(server.asked().iter().all(|asked| asked.method == Method::GET), "{:?}", server.asked());
    });
}

#[test]
fn a_passing_fault_is_forgotten() {
    within(async {
        let server = Server::start(NOISY_END.bytes()).await;
        let video = Video::open(server.object(), options(), None).await.unwrap();
        server.set(Fault::Cut);
        exact(&video, &[2.0]).await.unwrap_err();
        server.set(Fault::None);
        assert_eq!(exact(&video, &[2.0]).await.unwrap().frames.len(), 1);
    });
}

#[test]
fn cancelling_ends_the_wait() {
    within(async {
        let server = Server::start(NOISY_END.bytes()).await;
        let patient = OpenOptions { timeout: Duration::from_secs(50), ..OpenOptions::default() };
        let video = Video::open(server.object(), patient, None).await.unwrap();
        server.set(Fault::Slow(Duration::from_secs(100)));
        let request = request(&[2.0], FrameMode::Exact);
        let cancel = request.cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel();
        });
        let started = Instant::now();
        let error = video.frames(request).await.map(|_| panic!("not cancelled")).unwrap_err();
        assert!(matches!(error, FrameError::Cancelled), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5), "cancelling took {:?}", started.elapsed());
    });
}
