//! Numbers up to a bound, as a pattern of digits.

use super::Pattern;

/// A number from 0 with a fixed number of decimals: `units` of 10^-`decimals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// How many of the smallest steps.
    pub units: u64,
    /// Digits behind the point.
    pub decimals: u32,
}

impl Decimal {
    /// The largest that is at most `value`; 0 for what is less than that. Sums of decimals may be a hair too small.
    pub fn at_most(value: f64, decimals: u32) -> Self {
        let units = (value.max(0.0) * 10_f64.powi(decimals as i32) + 1e-6).floor();
        Self { units: units as u64, decimals }
    }

    /// The largest that is less than `value`; 0 where there is none.
    pub fn below(value: f64, decimals: u32) -> Self {
        let most = Self::at_most(value, decimals);
        if most.value() < value { most } else { Self { units: most.units.saturating_sub(1), decimals } }
    }

    /// As a number.
    pub fn value(self) -> f64 {
        self.units as f64 / 10_f64.powi(self.decimals as i32)
    }

    /// All numbers from 0 up to it, without needless zeros in front, with up to its number of decimals.
    pub(super) fn up_to(self) -> Pattern {
        let scale = 10_u64.pow(self.decimals);
        let (whole, rest) = (self.units / scale, self.units % scale);
        if self.decimals == 0 {
            return whole_up_to(whole);
        }
        let any = fraction(digit(0, 9).repeated(1, Some(self.decimals)));
        let least = format!("{rest:0width$}", width = self.decimals as usize);
        let last = Pattern::Sequence(vec![
            Pattern::text(&whole.to_string()),
            optional(fraction(digits_up_to(least.as_bytes()))),
        ]);
        match whole.checked_sub(1) {
            Some(less) => {
                Pattern::Choice(vec![Pattern::Sequence(vec![whole_up_to(less), optional(any)]), last])
            }
            None => last,
        }
    }
}

/// Whole numbers from 0 to `most`.
fn whole_up_to(most: u64) -> Pattern {
    let text = most.to_string();
    let digits: Vec<u64> = text.bytes().map(|byte| u64::from(byte - b'0')).collect();
    let mut choices = Vec::new();
    if digits.len() > 1 {
        choices.push(digit(0, 9));
        let shorter = digits.len() as u32 - 2;
        if shorter > 0 {
            let rest = digit(0, 9).repeated(1, Some(shorter));
            choices.push(Pattern::Sequence(vec![digit(1, 9), rest]));
        }
    }
    for (at, &value) in digits.iter().enumerate() {
        let least = u64::from(at == 0 && digits.len() > 1);
        if value > least {
            let free = (digits.len() - at - 1) as u32;
            choices.push(Pattern::Sequence(vec![
                Pattern::text(&text[..at]),
                digit(least, value - 1),
                digit(0, 9).repeated(free, Some(free)),
            ]));
        }
    }
    choices.push(Pattern::Text(text));
    Pattern::Choice(choices)
}

/// One to as many digits as `most` has, none of them standing for more than it does.
fn digits_up_to(most: &[u8]) -> Pattern {
    let Some((&first, rest)) = most.split_first() else { return Pattern::text("") };
    let first = u64::from(first - b'0');
    let free = rest.len() as u32;
    let mut choices = Vec::new();
    if first > 0 {
        choices.push(Pattern::Sequence(vec![digit(0, first - 1), digit(0, 9).repeated(0, Some(free))]));
    }
    let same = Pattern::text(&first.to_string());
    choices.push(if rest.is_empty() {
        same
    } else {
        Pattern::Sequence(vec![same, optional(digits_up_to(rest))])
    });
    Pattern::Choice(choices)
}

fn fraction(digits: Pattern) -> Pattern {
    Pattern::Sequence(vec![Pattern::text("."), digits])
}

fn optional(part: Pattern) -> Pattern {
    part.repeated(0, Some(1))
}

fn digit(from: u64, to: u64) -> Pattern {
    let digit = |value: u64| char::from(b'0' + value as u8);
    Pattern::Range(digit(from), digit(to))
}
