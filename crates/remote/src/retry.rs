//! When a passing fault is tried again: pauses that double, drawn at random between a half and the whole so that workers
//! which failed together do not come back together; a server's own `Retry-After` goes first.

use std::time::{Duration, SystemTime};

use rand::Rng as _;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The first pause.
const FIRST: Duration = Duration::from_millis(500);
/// The longest pause of our own.
const LONGEST: Duration = Duration::from_secs(30);
/// A server that wants to be left alone for longer is not waited for here: the job comes back later.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The pause before try `tries + 1`.
pub(crate) fn pause(tries: u32, asked: Option<Duration>) -> Duration {
    if let Some(asked) = asked {
        return asked;
    }
    let whole = LONGEST.min(FIRST.saturating_mul(1 << tries.saturating_sub(1).min(16)));
    whole.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// What `Retry-After` says: seconds, or a date.
pub(crate) fn asked(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // A date that is over means now.
    httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        for (tries, most_ms) in [(1, 500), (2, 1000), (3, 2000), (7, 30_000), (u32::MAX, 30_000)] {
            let most = Duration::from_millis(most_ms);
            for _ in 0..50 {
                let pause = pause(tries, None);
                assert!(pause >= most / 2 && pause <= most, "{tries}: {pause:?}");
            }
        }
        assert_eq!(pause(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let said = |text: &str| {
            let headers: HeaderMap = [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
            asked(&headers, now)
        };
        assert_eq!(said("3"), Some(Duration::from_secs(3)));
        assert_eq!(said("Sun, 09 Sep 2001 01:46:50 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(said("Sun, 09 Sep 2001 01:46:30 GMT"), Some(Duration::ZERO));
        assert_eq!(said("soon"), None);
        assert_eq!(asked(&HeaderMap::new(), now), None);
    }
}
