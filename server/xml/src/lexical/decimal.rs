//! Decimal numbers of any length, as text.

use std::borrow::Cow;
use std::cmp::Ordering;

/// How far an exponent may move the point; `1e999999999` would otherwise become a gigabyte of zeros.
const MAX_SHIFT: u32 = 400;

/// An `xs:decimal`, without what does not count: leading zeros, zeros after the last digit of a fraction, and
/// the sign of zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal<'t> {
    negative: bool,
    whole: &'t str,
    fraction: &'t str,
}

impl<'t> Decimal<'t> {
    pub(crate) fn parse(text: &'t str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let negative = negative && !(whole.is_empty() && fraction.is_empty());
        Some(Self { negative, whole, fraction })
    }

    /// Whether it has no fraction.
    pub(crate) fn is_whole(&self) -> bool {
        self.fraction.is_empty()
    }

    /// How many digits it takes, at least one.
    pub(crate) fn total_digits(&self) -> usize {
        let fraction = match self.whole.is_empty() {
            true => self.fraction.trim_start_matches('0').len(),
            false => self.fraction.len(),
        };
        (self.whole.len() + fraction).max(1)
    }

    /// How many of them are after the point.
    pub(crate) fn fraction_digits(&self) -> usize {
        self.fraction.len()
    }

    fn magnitude(&self, other: &Self) -> Ordering {
        let whole = self.whole.len().cmp(&other.whole.len()).then_with(|| self.whole.cmp(other.whole));
        // Without zeros at the end, fractions compare as text does.
        whole.then_with(|| self.fraction.cmp(other.fraction))
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.magnitude(other),
            (true, true) => other.magnitude(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

/// `text` without an exponent, every digit kept: XML Schema's decimals have none, JSON's numbers may. `None`
/// when it is no number, or one of more zeros than anybody means.
pub(crate) fn without_exponent(text: &str) -> Option<Cow<'_, str>> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return Decimal::parse(text).map(|_| Cow::Borrowed(text));
    };
    Decimal::parse(mantissa)?;
    let exponent: i32 = exponent.parse().ok()?;
    let shift =
        usize::try_from(exponent.unsigned_abs()).ok().filter(|_| exponent.unsigned_abs() <= MAX_SHIFT)?;
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa.trim_start_matches('+')),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let zeros = "0".repeat(shift);
    // Enough zeros on the side that the point moves to.
    let (all, point) = match exponent < 0 {
        true => (format!("{zeros}{whole}{fraction}"), whole.len()),
        false => (format!("{whole}{fraction}{zeros}"), whole.len() + shift),
    };
    let (whole, fraction) = all.split_at_checked(point)?;
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    Some(Cow::Owned(format!("{sign}{whole}{point}{fraction}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal<'_> {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        assert_eq!(decimal("+007.50"), decimal("7.5"));
        assert_eq!(decimal("-0.0"), decimal("0"));
        assert_eq!(decimal(".5"), decimal("0.5"));
        assert!(decimal("12345678901234567890.1") > decimal("12345678901234567890.09"));
        assert!(
            decimal("-2") < decimal("-1.5") && decimal("-1") < decimal("0") && decimal("10") > decimal("9")
        );
        for text in ["", "+", ".", "1.2.3", "1e5", "--1", " 1", "1,5", "٣"] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn digits_are_counted_as_the_facets_mean() {
        let counts = |text| (decimal(text).total_digits(), decimal(text).fraction_digits());
        assert_eq!(counts("012.340"), (4, 2));
        assert_eq!(counts("0.007"), (1, 3));
        assert_eq!(counts("0"), (1, 0));
    }

    #[test]
    fn exponents_become_digits() {
        for (text, plain) in [
            ("1E3", "1000"),
            ("-1.5e-3", "-0.0015"),
            ("12.345e1", "123.45"),
            ("0e5", "0"),
            ("1e-1", "0.1"),
            ("12.50", "12.50"),
            ("+2e+1", "20"),
            ("100e-2", "1"),
        ] {
            assert_eq!(without_exponent(text).as_deref(), Some(plain), "{text}");
        }
        for text in ["", "e5", "1e", "1e99999999999", "1e401", "x", "1e1.5"] {
            assert_eq!(without_exponent(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_numbers(a in -100_000_i64..100_000, b in -100_000_i64..100_000, zeros in 0_usize..3) {
            let text = |n: i64| format!("{}{}.{:03}{}", if n < 0 { "-" } else { "" }, n.abs() / 1000, n.abs() % 1000,
                "0".repeat(zeros));
            prop_assert_eq!(decimal(&text(a)).cmp(&decimal(&text(b))), a.cmp(&b));
        }

        #[test]
        fn a_moved_point_is_the_same_number(value in any::<f64>()) {
            prop_assume!(value.is_finite());
            let plain = without_exponent(&format!("{value:e}")).unwrap().into_owned();
            prop_assert_eq!(plain.parse::<f64>().unwrap(), value);
        }
    }
}
