//! Moments as users read and write them: UTC texts such as `2026-03-01T09:30:00.250Z`, which sort by time.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A text that is no moment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no moment: write it as 2026-03-01T09:30:00Z (RFC 3339)")]
pub struct MomentError(pub String);

/// Milliseconds since 1970 as text.
pub fn moment_text(ms: i64) -> String {
    let nanoseconds = i128::from(ms) * 1_000_000;
    match OffsetDateTime::from_unix_timestamp_nanos(nanoseconds) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        ),
        // Beyond year 9999 no text sorts by time any more.
        Err(_) => format!("{ms}ms"),
    }
}

/// An RFC 3339 text, with any offset, as milliseconds since 1970.
///
/// # Errors
/// A text of another form.
pub fn parse_moment(text: &str) -> Result<i64, MomentError> {
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| MomentError(text.to_owned()))?;
    let ms = at.to_offset(UtcOffset::UTC).unix_timestamp_nanos() / 1_000_000;
    i64::try_from(ms).map_err(|_| MomentError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_back() {
        assert_eq!(moment_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment_text(1_772_357_400_250), "2026-03-01T09:30:00.250Z");
        assert_eq!(parse_moment("2026-03-01T09:30:00.250Z"), Ok(1_772_357_400_250));
        assert_eq!(parse_moment("2026-03-01T10:30:00.25+01:00"), Ok(1_772_357_400_250));
        for bad in ["", "tomorrow", "2026-03-01", "2026-03-01T09:30:00", "2026-13-01T09:30:00Z"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }
}
