//! When an index is listed: the five fields of cron, in UTC.

use std::str::FromStr as _;

use chrono::{DateTime, Utc};
use cron::Schedule;

use crate::StoreError;

/// Checks a schedule: minute, hour, day of month, month, day of week (0 and 7 are Sunday), UTC.
///
/// # Errors
/// [`StoreError::Invalid`].
pub fn check_schedule(text: &str) -> Result<(), StoreError> {
    let never = || StoreError::Invalid(format!("schedule {text:?} never comes to pass"));
    next_after(text, 0)?.ok_or_else(never).map(|_| ())
}

/// The next time of `text` after `after_ms`, both milliseconds since 1970; `None` where there is none.
pub(super) fn next_after(text: &str, after_ms: i64) -> Result<Option<i64>, StoreError> {
    let after = DateTime::<Utc>::from_timestamp_millis(after_ms).unwrap_or_default();
    Ok(parse(text)?.after(&after).next().map(|time| time.timestamp_millis()))
}

fn parse(text: &str) -> Result<Schedule, StoreError> {
    let invalid = |cause: &str| {
        StoreError::Invalid(format!(
            "schedule {text:?}: {cause}; write five fields: minute, hour, day of month, month, day of week (UTC)"
        ))
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let &[minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(invalid("not five fields"));
    };
    let weekday = named_weekdays(weekday).ok_or_else(|| invalid("its day of week cannot be read"))?;
    // The crate counts seconds first, and weekdays from Sunday = 1, unlike cron.
    Schedule::from_str(&format!("0 {minute} {hour} {day} {month} {weekday}"))
        .map_err(|cause| invalid(&cause.to_string()))
}

/// The field with names in place of numbers; a step stays a number.
fn named_weekdays(field: &str) -> Option<String> {
    const NAMES: [&str; 8] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let day = |text: &str| match text.parse::<usize>() {
        Ok(number) => NAMES.get(number).map(|name| (*name).to_owned()),
        Err(_) => Some(text.to_owned()),
    };
    let part = |text: &str| {
        let (days, step) = text.split_once('/').map_or((text, None), |(days, step)| (days, Some(step)));
        let days = match days.split_once('-') {
            // Up to Sunday as the last day: the crate's week begins with it.
            Some((first, "7")) => format!("{}-Sat,Sun", day(first)?),
            Some((first, last)) => format!("{}-{}", day(first)?, day(last)?),
            None => day(days)?,
        };
        Some(step.map_or_else(|| days.clone(), |step| format!("{days}/{step}")))
    };
    Some(field.split(',').map(part).collect::<Option<Vec<_>>>()?.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str, after: &str) -> String {
        let after: DateTime<Utc> = after.parse().unwrap();
        let next = next_after(text, after.timestamp_millis()).unwrap().unwrap();
        DateTime::<Utc>::from_timestamp_millis(next).unwrap().to_rfc3339()
    }

    #[test]
    fn weekdays_count_as_in_cron() {
        // 1 March 2026 is a Sunday.
        let sunday = "2026-03-01T12:00:00Z";
        for (text, then) in [
            ("30 2 * * *", "2026-03-02T02:30:00+00:00"),
            ("*/15 * * * *", "2026-03-01T12:15:00+00:00"),
            ("0 0 * * 1", "2026-03-02T00:00:00+00:00"),
            ("0 0 * * 0", "2026-03-08T00:00:00+00:00"),
            ("0 0 * * 7", "2026-03-08T00:00:00+00:00"),
            ("0 0 * * sat", "2026-03-07T00:00:00+00:00"),
            ("0 0 * * 2-4", "2026-03-03T00:00:00+00:00"),
            ("0 0 * * 6-7", "2026-03-07T00:00:00+00:00"),
            ("0 0 1 * *", "2026-04-01T00:00:00+00:00"),
        ] {
            assert_eq!(next(text, sunday), then, "{text}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in
            ["", "* * * *", "0 * * * * *", "61 * * * *", "@daily", "0 0 * * 8", "0 0 30 2 *", "x * * * *"]
        {
            assert!(check_schedule(text).is_err(), "{text}");
        }
    }
}
