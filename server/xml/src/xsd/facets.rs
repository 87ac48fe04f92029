//! What restricts the values of a simple type (XML Schema part 2, section 4.3).

use std::cmp::Ordering;
use std::sync::Arc;

use regex::Regex;

use super::model::{Enumerated, Primitive};
use crate::lexical::binary::base64_length;
use crate::lexical::decimal::Decimal;
use crate::lexical::moment::{Calendar, Moment};
use crate::lexical::{Form, WhiteSpace, double, special_double, words};

/// All facets of a type, those of its bases included: what a base forbids stays forbidden.
#[derive(Debug, Clone)]
pub(crate) struct Facets {
    pub(crate) white_space: WhiteSpace,
    pub(crate) form: Option<Form>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    /// Each has to match.
    pub(crate) patterns: Vec<Regex>,
    pub(crate) enumeration: Option<Arc<[Enumerated]>>,
    pub(crate) min: Option<Bound>,
    pub(crate) max: Option<Bound>,
    pub(crate) total_digits: Option<u64>,
    pub(crate) fraction_digits: Option<u64>,
}

/// One end of a range.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) text: Arc<str>,
    pub(crate) inclusive: bool,
}

/// What lengths are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Characters,
    Bytes,
    Items,
}

impl Facets {
    pub(crate) const fn new(white_space: WhiteSpace) -> Self {
        Self {
            white_space,
            form: None,
            min_length: None,
            max_length: None,
            patterns: Vec::new(),
            enumeration: None,
            min: None,
            max: None,
            total_digits: None,
            fraction_digits: None,
        }
    }

    /// What of a base applies to a list or a union of its own making.
    pub(crate) fn of_list() -> Self {
        Self::new(WhiteSpace::Collapse)
    }

    /// Whether there is nothing to check.
    fn is_free(&self) -> bool {
        self.form.is_none()
            && self.min_length.is_none()
            && self.max_length.is_none()
            && self.patterns.is_empty()
            && self.enumeration.is_none()
            && self.min.is_none()
            && self.max.is_none()
            && self.total_digits.is_none()
            && self.fraction_digits.is_none()
    }

    /// Checks `text`, of which white space was dealt with and whose form is that of `primitive`.
    ///
    /// # Errors
    /// What it breaks, for a person, without the value.
    pub(crate) fn check(&self, primitive: Primitive, text: &str) -> Result<(), String> {
        if self.is_free() {
            return Ok(());
        }
        if self.form.is_some_and(|form| !form.allows(text)) {
            return Err("the value is not of the form its type asks for".to_owned());
        }
        let unit = match primitive {
            Primitive::HexBinary | Primitive::Base64Binary => Unit::Bytes,
            _ => Unit::Characters,
        };
        if self.min_length.is_some() || self.max_length.is_some() {
            let length = match (unit, primitive) {
                (Unit::Bytes, Primitive::HexBinary) => text.len() / 2,
                (Unit::Bytes, _) => base64_length(text),
                _ => text.chars().count(),
            };
            self.check_length(length, unit)?;
        }
        self.check_text(text, |one| same(primitive, one, text))?;
        self.check_range(primitive, text)?;
        self.check_digits(text)
    }

    /// Checks a list or a union as a whole.
    pub(crate) fn check_whole(&self, text: &str) -> Result<(), String> {
        if self.min_length.is_some() || self.max_length.is_some() {
            self.check_length(words(text).count(), Unit::Items)?;
        }
        self.check_text(text, |one| one == text)
    }

    fn check_length(&self, length: usize, unit: Unit) -> Result<(), String> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let counted = |count: u64| match (unit, count) {
            (Unit::Characters, 1) => "1 character".to_owned(),
            (Unit::Characters, count) => format!("{count} characters"),
            (Unit::Bytes, 1) => "1 byte".to_owned(),
            (Unit::Bytes, count) => format!("{count} bytes"),
            (Unit::Items, 1) => "1 item".to_owned(),
            (Unit::Items, count) => format!("{count} items"),
        };
        match (self.min_length, self.max_length) {
            (Some(min), _) if length < min => Err(format!("the value is shorter than {}", counted(min))),
            (_, Some(max)) if length > max => Err(format!("the value is longer than {}", counted(max))),
            _ => Ok(()),
        }
    }

    fn check_text(&self, text: &str, is: impl Fn(&str) -> bool) -> Result<(), String> {
        if self.patterns.iter().any(|pattern| !pattern.is_match(text)) {
            return Err("the value does not match the pattern of its type".to_owned());
        }
        match &self.enumeration {
            Some(values) if !values.iter().any(|value| is(&value.text)) => Err(one_of(values)),
            _ => Ok(()),
        }
    }

    fn check_range(&self, primitive: Primitive, text: &str) -> Result<(), String> {
        let beyond = |bound: &Option<Bound>, wrong: Ordering| {
            let bound = bound.as_ref()?;
            let order = compare(primitive, text, &bound.text)?;
            let is_wrong = order == wrong || (order == Ordering::Equal && !bound.inclusive);
            is_wrong.then(|| (bound.text.clone(), bound.inclusive))
        };
        if let Some((bound, inclusive)) = beyond(&self.min, Ordering::Less) {
            let relation = if inclusive { "less than" } else { "not greater than" };
            return Err(format!("the value is {relation} {bound}"));
        }
        if let Some((bound, inclusive)) = beyond(&self.max, Ordering::Greater) {
            let relation = if inclusive { "greater than" } else { "not less than" };
            return Err(format!("the value is {relation} {bound}"));
        }
        Ok(())
    }

    fn check_digits(&self, text: &str) -> Result<(), String> {
        if self.total_digits.is_none() && self.fraction_digits.is_none() {
            return Ok(());
        }
        let Some(decimal) = Decimal::parse(text) else { return Ok(()) };
        let beyond = |most: Option<u64>, count: usize| most.filter(|most| *most < count as u64);
        if let Some(most) = beyond(self.total_digits, decimal.total_digits()) {
            return Err(format!("the value has more than {most} digits"));
        }
        if let Some(most) = beyond(self.fraction_digits, decimal.fraction_digits()) {
            return Err(format!("the value has more than {most} digits after the point"));
        }
        Ok(())
    }
}

/// `the value is not one of "a", "b"`, cut where it would become an essay.
fn one_of(values: &[Enumerated]) -> String {
    let shown: Vec<_> = values.iter().take(20).map(|value| format!("{:?}", &*value.text)).collect();
    let more = if values.len() > shown.len() { ", …" } else { "" };
    format!("the value is not one of {}{more}", shown.join(", "))
}

/// Whether two texts are the same value.
pub(crate) fn same(primitive: Primitive, one: &str, other: &str) -> bool {
    one == other || compare(primitive, one, other) == Some(Ordering::Equal)
}

/// How two values compare; `None` when their type has no order.
pub(crate) fn compare(primitive: Primitive, one: &str, other: &str) -> Option<Ordering> {
    let moments = |calendar| Moment::parse(calendar, one)?.partial_cmp(&Moment::parse(calendar, other)?);
    match primitive {
        Primitive::Decimal | Primitive::Integer => Some(Decimal::parse(one)?.cmp(&Decimal::parse(other)?)),
        Primitive::Double => {
            let number = |text| double(text).or_else(|| special_double(text));
            number(one)?.partial_cmp(&number(other)?)
        }
        _ => moments(calendar(primitive)?),
    }
}

/// The calendar type that `primitive` is, if it is one.
pub(crate) fn calendar(primitive: Primitive) -> Option<Calendar> {
    Some(match primitive {
        Primitive::DateTime => Calendar::DateTime,
        Primitive::Date => Calendar::Date,
        Primitive::Time => Calendar::Time,
        Primitive::YearMonth => Calendar::YearMonth,
        Primitive::Year => Calendar::Year,
        Primitive::MonthDay => Calendar::MonthDay,
        Primitive::Day => Calendar::Day,
        Primitive::Month => Calendar::Month,
        _ => return None,
    })
}
