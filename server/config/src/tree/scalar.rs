//! What a plain YAML scalar means: the core schema of YAML 1.2.2, section 10.3.2.
//!
//! `yes`, `no`, `on` and `off` are texts there (YAML 1.1 made booleans of them, so that the country code `no`
//! became false). Where the core schema would lose something, the scalar is refused instead: an integer with
//! leading zeros (`007` may be a telephone number), a number that does not fit, and `.inf` and `.nan`, which
//! JSON does not have.

use serde_json::{Number, Value};

/// Longest plain scalar that is looked at as a number.
const MAX_NUMBER_BYTES: usize = 400;

/// What `text`, written without quotes, stands for.
///
/// # Errors
/// Why it is refused, for a person.
pub(crate) fn resolve(text: &str) -> Result<Value, &'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.'))
        || text.len() > MAX_NUMBER_BYTES
    {
        return Ok(Value::String(text.to_owned()));
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if is_special(text, unsigned) {
        return Err("infinity and not-a-number cannot be used; write a number, or quote the text");
    }
    if let Some(number) = prefixed_integer(text) {
        return number.map(Value::Number).ok_or("the number is out of range; quote it if it is a text");
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return decimal_integer(text, unsigned);
    }
    if is_float(unsigned) {
        return text
            .parse::<f64>()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or("the number is out of range; quote it if it is a text");
    }
    Ok(Value::String(text.to_owned()))
}

fn is_special(text: &str, unsigned: &str) -> bool {
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// `0o17` and `0x1F`; they have no sign. `None`: not such a number.
fn prefixed_integer(text: &str) -> Option<Option<Number>> {
    let (digits, radix) = match (text.strip_prefix("0o"), text.strip_prefix("0x")) {
        (Some(digits), _) => (digits, 8),
        (None, Some(digits)) => (digits, 16),
        (None, None) => return None,
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    Some(u64::from_str_radix(digits, radix).ok().map(Number::from))
}

fn decimal_integer(text: &str, unsigned: &str) -> Result<Value, &'static str> {
    if unsigned.len() > 1 && unsigned.starts_with('0') {
        return Err("a number with leading zeros is ambiguous; quote it if it is a text, or leave them out");
    }
    let number = match text.parse::<i64>() {
        Ok(number) => Some(Number::from(number)),
        Err(_) => text.parse::<u64>().ok().map(Number::from),
    };
    number.map(Value::Number).ok_or("the number is out of range; quote it if it is a text")
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?` without its sign.
fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_fits && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_mean_what_the_core_schema_says() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("FALSE", json!(false)),
            ("0", json!(0)),
            ("-7", json!(-7)),
            ("+12", json!(12)),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("0o17", json!(15)),
            ("0xFf", json!(255)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1.", json!(1.0)),
            ("-1e3", json!(-1000.0)),
            ("12e03", json!(12000.0)),
        ];
        for (text, value) in cases {
            assert_eq!(resolve(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn norway_is_a_country() {
        for text in [
            "no",
            "NO",
            "yes",
            "on",
            "off",
            "y",
            "n",
            "-",
            "+",
            ".",
            "1:30",
            "1_000",
            "2024-01-01",
            "0b1",
            "0x",
            "0o8",
            "-0x1",
            "1e",
            "e1",
            "1.2.3",
            "truE",
            "+.nan",
            "Infinity",
        ] {
            assert_eq!(resolve(text), Ok(json!(text)), "{text}");
        }
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        for text in [
            "007",
            "-01",
            "00",
            "18446744073709551616",
            "-9223372036854775809",
            ".inf",
            "-.INF",
            ".nan",
            "1e999",
            "0xFFFFFFFFFFFFFFFFF",
        ] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}
