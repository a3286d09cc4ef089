//! The numbers in what a model wrote: `12`, `12.5s`, `1:23`, `1:02:03.5`, `-4`; whatever stands between them.

/// More numbers than any list of frames holds are not read.
const MOST: usize = 8192;

/// All numbers of a text, in order; clock times in seconds. Never panics; what overflows is left out.
pub(crate) fn numbers(text: &str) -> Vec<f64> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() && found.len() < MOST {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let (value, end) = number(text, at);
        let signed = if is_minus(&bytes[..at]) { -value } else { value };
        if signed.is_finite() {
            found.push(signed);
        }
        at = end;
    }
    found
}

/// The number that starts at the digit `start`, and where it ends.
fn number(text: &str, start: usize) -> (f64, usize) {
    let bytes = text.as_bytes();
    let mut end = digits_end(bytes, start);
    let mut value = text[start..end].parse::<f64>().unwrap_or(f64::INFINITY);
    while let Some(next) = clock_part(bytes, end) {
        value = value * 60.0 + text[end + 1..next].parse::<f64>().unwrap_or(0.0);
        end = next;
    }
    let decimals = digits_end(bytes, end + 1);
    if bytes.get(end) == Some(&b'.') && decimals > end + 1 {
        value += text[end..decimals].parse::<f64>().unwrap_or(0.0);
        // One parse of the whole is exact where a sum is not.
        value = text[start..decimals].parse::<f64>().unwrap_or(value);
        end = decimals;
    }
    (value, end)
}

fn digits_end(bytes: &[u8], start: usize) -> usize {
    let digits = bytes.get(start..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
    start + digits.count()
}

/// Where `:` with exactly two digits after it ends, if that stands at `colon`.
fn clock_part(bytes: &[u8], colon: usize) -> Option<usize> {
    let end = digits_end(bytes, colon + 1);
    (bytes.get(colon) == Some(&b':') && end == colon + 3).then_some(end)
}

/// True where `before` ends with a minus sign; a dash after a number or a unit is a separator (`5-10`, `5s -10s`).
fn is_minus(before: &[u8]) -> bool {
    let Some((b'-', head)) = before.split_last() else { return false };
    let last = head.trim_ascii_end().last();
    last.is_none_or(|byte| matches!(byte, b'(' | b'[' | b'{' | b',' | b';' | b'=' | b':' | b'>'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_as_models_write_them() {
        let cases: [(&str, &[f64]); 12] = [
            ("(385, 487)", &[385.0, 487.0]),
            ("[12.5s - 20s]", &[12.5, 20.0]),
            ("5-10", &[5.0, 10.0]),
            ("(-5, 10.25)", &[-5.0, 10.25]),
            ("01:05 to 1:02:03.5", &[65.0, 3723.5]),
            ("at 7.", &[7.0]),
            ("1:5", &[1.0, 5.0]),
            (".5", &[5.0]),
            ("from 3 to 4 seconds", &[3.0, 4.0]),
            ("none", &[]),
            ("5–10", &[5.0, 10.0]),
            ("[[1,2],[3,4]]", &[1.0, 2.0, 3.0, 4.0]),
        ];
        for (text, expected) in cases {
            assert_eq!(numbers(text), expected, "{text}");
        }
        assert!(numbers(&"9".repeat(400)).is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>(), dense in "[-0-9:.,s() ]{0,60}") {
            prop_assert!(numbers(&text).iter().all(|number| number.is_finite()));
            prop_assert!(numbers(&dense).iter().all(|number| number.is_finite()));
        }

        #[test]
        fn decimals_are_read_exactly(value in 0.0..1e6_f64) {
            prop_assert_eq!(numbers(&format!("({value}, x)")), vec![value]);
        }
    }
}
