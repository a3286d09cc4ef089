//! Cron lines: the usual five fields, in UTC.
//!
//! The schedule below counts weekdays from Sunday = 1, as nobody who writes a crontab does: numbers are turned into
//! names before it sees them. Where both day and weekday are restricted, both must fit.

use std::{fmt, str::FromStr};

use crate::QueueError;

/// When something is to be done.
#[derive(Clone)]
pub struct Cron {
    line: String,
    pub(crate) schedule: cron::Schedule,
}

impl Cron {
    /// The first time after `after_s` (seconds since 1970) that the line names; none where there is no more.
    pub fn next_after(&self, after_s: i64) -> Option<i64> {
        let after = chrono::DateTime::from_timestamp(after_s, 0)?;
        self.schedule.after(&after).next().map(|time| time.timestamp())
    }
}

impl FromStr for Cron {
    type Err = QueueError;

    /// Five fields (minute first), or six with the second in front.
    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let fail = |cause: String| QueueError::Cron { line: line.to_owned(), cause };
        let fields = line.split_whitespace().count();
        let whole = match fields {
            5 => with_weekdays(&format!("0 {line}")),
            6 => with_weekdays(line),
            _ if line.trim().starts_with('@') => line.trim().to_owned(),
            _ => return Err(fail(format!("it has {fields} fields"))),
        };
        let schedule = cron::Schedule::from_str(&whole).map_err(|cause| fail(cause.to_string()))?;
        Ok(Self { line: line.to_owned(), schedule })
    }
}

/// The line (second first) with names for the numbers of its last field.
fn with_weekdays(line: &str) -> String {
    let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if let Some(last) = fields.last_mut() {
        *last = last.split(',').map(weekdays).collect::<Vec<_>>().join(",");
    }
    fields.join(" ")
}

/// One item of the weekday field: `1`, `1-5`, `5-7`, `1-5/2`; anything else stays as it is.
fn weekdays(item: &str) -> String {
    const NAMES: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];
    let (range, step) = item.split_once('/').map_or((item, "1"), |(range, step)| (range, step));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<usize>(), last.parse::<usize>(), step.parse::<usize>()) {
        (Ok(first), Ok(last), Ok(step)) if first <= last && last < NAMES.len() && step > 0 => {
            (first..=last).step_by(step).map(|day| NAMES[day]).collect::<Vec<_>>().join(",")
        }
        _ => item.to_owned(),
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({})", self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_fields_begin_with_the_minute() {
        let hourly: Cron = "30 * * * *".parse().unwrap();
        assert_eq!(hourly.next_after(0), Some(1800));
        assert_eq!(hourly.next_after(1800), Some(5400));
        let seconds: Cron = "*/5 * * * * *".parse().unwrap();
        assert_eq!(seconds.next_after(1), Some(5));
        // 1 January 1970 was a Thursday.
        const DAY: i64 = 86_400;
        let days = |line: &str| -> Vec<i64> {
            let cron: Cron = line.parse().unwrap();
            let next = |after: &i64| cron.next_after(*after);
            std::iter::successors(next(&-1), next)
                .take_while(|time| *time < 7 * DAY)
                .map(|time| time / DAY)
                .collect()
        };
        assert_eq!(days("0 0 * * 1"), [4], "Monday");
        assert_eq!(days("0 0 * * 0"), days("0 0 * * 7"), "Sunday has two numbers");
        assert_eq!(days("0 0 * * 1-5"), [0, 1, 4, 5, 6]);
        assert_eq!(days("0 0 * * 5-7"), [1, 2, 3]);
        assert_eq!(days("0 0 * * MON,3"), [4, 6]);
        let daily: Cron = "@daily".parse().unwrap();
        assert_eq!(daily.next_after(1), Some(86_400));
    }

    #[test]
    fn a_bad_line_is_named() {
        for line in ["", "* * *", "61 * * * *", "a b c d e", "@sometimes"] {
            let error = line.parse::<Cron>().unwrap_err().to_string();
            assert!(error.contains(&format!("{line:?}")), "{error}");
        }
    }
}
