//! Values of simple types, from text to JSON and back.

use std::borrow::Cow;

use crosstie_model::tagged::Tag;
use serde_json::{Number, Value};

use super::{Scalars, Zoneless};
use crate::chars::first_illegal;
use crate::document::Element;
use crate::lexical::binary::{base64, is_hex};
use crate::lexical::decimal::{Decimal, without_exponent};
use crate::lexical::moment::Moment;
use crate::lexical::{boolean, double, is_duration, is_qname, special_double, words};
use crate::xsd::{Primitive, SchemaSet, SimpleType, TypeDefinition, TypeId, Variety, calendar, same};

/// Lists of unions of lists may refer to each other only so deep.
const MAX_NESTING: u8 = 16;

/// Up to here every integer has a double of its own: 2 to the power of 53.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// What a text is read with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) set: &'a SchemaSet,
    pub(super) zoneless: Zoneless,
    pub(super) scalars: Scalars,
    /// Where prefixes in values are resolved.
    pub(super) element: Option<Element<'a>>,
    pub(super) nesting: u8,
}

impl Context<'_> {
    fn deeper(self) -> Result<Self, String> {
        let nesting = self.nesting + 1;
        if nesting > MAX_NESTING {
            Err("the type nests too deep".to_owned())
        } else {
            Ok(Self { nesting, ..self })
        }
    }
}

/// The value that `text` is by the simple type `id`.
///
/// # Errors
/// What is wrong with it, for a person, without the text itself.
pub(super) fn read(context: Context<'_>, id: TypeId, text: &str) -> Result<Value, String> {
    match context.set.definition(id) {
        TypeDefinition::Simple(simple) => read_simple(context, simple, text),
        // A type of which there is no schema.
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn read_simple(context: Context<'_>, simple: &SimpleType, raw: &str) -> Result<Value, String> {
    let facets = &simple.facets;
    let text = facets.white_space.apply(raw);
    match &simple.variety {
        Variety::Atomic(primitive) => {
            let value = read_atomic(context, *primitive, &text)?;
            // Bytes are counted without the white space that may break their text.
            match (&value, primitive) {
                (Value::String(compact), Primitive::Base64Binary) => facets.check(*primitive, compact)?,
                _ => facets.check(*primitive, &text)?,
            }
            let named = facets.enumeration.iter().flat_map(|values| values.iter());
            let known = named.filter(|one| one.json.is_some()).find(|one| same(*primitive, &one.text, &text));
            let value = known.and_then(|known| known.json.clone()).unwrap_or(value);
            Ok(if context.scalars == Scalars::Tagged { tagged(*primitive, value) } else { value })
        }
        Variety::List(item) => {
            facets.check_whole(&text)?;
            let context = context.deeper()?;
            words(&text).map(|word| read(context, *item, word)).collect::<Result<_, _>>().map(Value::Array)
        }
        Variety::Union(members) => {
            facets.check_whole(&text)?;
            let context = context.deeper()?;
            let value = members.iter().find_map(|member| read(context, *member, raw).ok());
            value.ok_or_else(|| "the value is of none of the types it may have".to_owned())
        }
    }
}

/// `value` with the mark of its type, where JSON has none for it.
fn tagged(primitive: Primitive, value: Value) -> Value {
    let tag = match primitive {
        Primitive::Decimal => Tag::Decimal,
        Primitive::Integer => Tag::Integer,
        Primitive::Double => Tag::Double,
        Primitive::DateTime => Tag::DateTime,
        Primitive::Date => Tag::Date,
        Primitive::Time => Tag::Time,
        Primitive::Base64Binary => Tag::Base64,
        _ => return value,
    };
    match value {
        Value::String(text) => tag.mark(text),
        number => number,
    }
}

fn read_atomic(context: Context<'_>, primitive: Primitive, text: &str) -> Result<Value, String> {
    let string = || Value::String(text.to_owned());
    let value = match primitive {
        Primitive::Any | Primitive::String | Primitive::AnyUri => Some(string()),
        Primitive::Boolean => boolean(text).map(Value::Bool),
        Primitive::Decimal => Decimal::parse(text).map(|_| string()),
        Primitive::Integer => Decimal::parse(text)
            .filter(|decimal| decimal.is_whole() && !text.contains('.'))
            .map(|_| whole_number(text).map_or_else(string, Value::Number)),
        Primitive::Double => match whole_number(text) {
            Some(number) => Some(Value::Number(number)),
            None => match double(text).and_then(Number::from_f64) {
                Some(number) => Some(Value::Number(number)),
                None => special_double(text).map(|_| string()),
            },
        },
        Primitive::Duration => is_duration(text).then(string),
        Primitive::HexBinary => is_hex(text).then(string),
        Primitive::Base64Binary => base64(text).map(|compact| Value::String(compact.into_owned())),
        Primitive::QName => read_name(context, text),
        Primitive::DateTime
        | Primitive::Time
        | Primitive::Date
        | Primitive::YearMonth
        | Primitive::Year
        | Primitive::MonthDay
        | Primitive::Day
        | Primitive::Month => {
            let moment = calendar(primitive).and_then(|calendar| Moment::parse(calendar, text));
            moment.map(|moment| {
                let has_none = primitive == Primitive::DateTime && moment.zone.is_none();
                match has_none && context.zoneless == Zoneless::Utc {
                    true => Value::String(format!("{text}Z")),
                    false => string(),
                }
            })
        }
    };
    value.ok_or_else(|| not_a(primitive))
}

/// An integer of 64 bits, which is a number that JSON holds without loss.
fn whole_number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    match digits.parse::<i64>() {
        Ok(number) => Some(number.into()),
        Err(_) => digits.parse::<u64>().ok().map(Number::from),
    }
}

fn read_name(context: Context<'_>, text: &str) -> Option<Value> {
    if !is_qname(text) {
        return None;
    }
    match context.element {
        Some(element) => element.resolve(text).map(|name| Value::String(name.to_string())),
        None => Some(Value::String(text.to_owned())),
    }
}

fn not_a(primitive: Primitive) -> String {
    let what = match primitive {
        Primitive::Any | Primitive::String => "text",
        Primitive::Boolean => "a boolean",
        Primitive::Decimal => "a decimal number",
        Primitive::Integer => "an integer",
        Primitive::Double => "a number",
        Primitive::Duration => "a duration",
        Primitive::DateTime => "a date with time",
        Primitive::Time => "a time",
        Primitive::Date => "a date",
        Primitive::YearMonth => "a month of a year",
        Primitive::Year => "a year",
        Primitive::MonthDay => "a day of a month",
        Primitive::Day => "a day",
        Primitive::Month => "a month",
        Primitive::HexBinary => "binary data in hexadecimal",
        Primitive::Base64Binary => "binary data in base64",
        Primitive::AnyUri => "a URI",
        Primitive::QName => "a qualified name",
    };
    format!("the value is not {what}")
}

/// The text of `value` by the simple type `id`. Names are left as `{namespace}local`.
///
/// # Errors
/// As [`read`].
pub(super) fn write<'v>(context: Context<'_>, id: TypeId, value: &'v Value) -> Result<Cow<'v, str>, String> {
    match context.set.definition(id) {
        TypeDefinition::Simple(simple) => write_simple(context, simple, value),
        _ => write_atomic(Primitive::Any, value),
    }
}

fn write_simple<'v>(
    context: Context<'_>,
    simple: &SimpleType,
    value: &'v Value,
) -> Result<Cow<'v, str>, String> {
    let facets = &simple.facets;
    match &simple.variety {
        Variety::Atomic(primitive) => {
            let named = facets.enumeration.iter().flat_map(|values| values.iter());
            if let Some(known) = named.into_iter().find(|one| one.json.as_ref() == Some(value)) {
                return Ok(Cow::Owned(known.text.to_string()));
            }
            let text = write_atomic(*primitive, value)?;
            facets.check(*primitive, &facets.white_space.apply(&text))?;
            Ok(text)
        }
        Variety::List(item) => {
            let context = context.deeper()?;
            let items = match value {
                Value::Array(items) => items.as_slice(),
                one => std::slice::from_ref(one),
            };
            let mut texts = Vec::with_capacity(items.len());
            for item_value in items {
                let text = write(context, *item, item_value)?;
                if text.is_empty() || text.contains([' ', '\t', '\n', '\r']) {
                    return Err("the values of a list are not empty and hold no white space".to_owned());
                }
                texts.push(text);
            }
            let text = texts.join(" ");
            facets.check_whole(&text)?;
            Ok(Cow::Owned(text))
        }
        Variety::Union(members) => {
            let context = context.deeper()?;
            let text = members.iter().find_map(|member| write(context, *member, value).ok());
            let text = text.ok_or_else(|| "the value is of none of the types it may have".to_owned())?;
            facets.check_whole(&text)?;
            Ok(text)
        }
    }
}

fn write_atomic(primitive: Primitive, value: &Value) -> Result<Cow<'_, str>, String> {
    // Text is taken for any type when it is of the type's form.
    let text: Cow<'_, str> = match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Bool(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        Value::Number(number) => Cow::Owned(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => return Err(not_a(primitive)),
    };
    let is_number = value.is_number();
    // A number that JSON's readers keep as a float has lost digits beyond that.
    let is_inexact = value.as_f64().is_some_and(|float| value.is_f64() && float.abs() >= EXACT_INTEGERS);
    let written = match primitive {
        Primitive::Any | Primitive::String | Primitive::AnyUri => {
            if first_illegal(&text).is_some() {
                return Err("the value holds a character that XML cannot hold".to_owned());
            }
            Some(text)
        }
        Primitive::Boolean => (!is_number && boolean(&text).is_some()).then_some(text),
        Primitive::Decimal => plain(text),
        Primitive::Integer if is_inexact => None,
        Primitive::Integer => plain(text).and_then(without_fraction),
        Primitive::Double => (double(&text).is_some() || special_double(&text).is_some()).then_some(text),
        Primitive::Duration => is_duration(&text).then_some(text),
        Primitive::HexBinary => (!is_number && is_hex(&text)).then_some(text),
        Primitive::Base64Binary => match base64(&text) {
            Some(compact) if value.is_string() => Some(Cow::Owned(compact.into_owned())),
            _ => None,
        },
        Primitive::QName => is_expanded_name(&text).then_some(text),
        _ => calendar(primitive).and_then(|calendar| {
            let text = rfc3339(primitive, text);
            Moment::parse(calendar, &text).is_some().then_some(text)
        }),
    };
    written.ok_or_else(|| not_a(primitive))
}

fn plain(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if text.contains(['e', 'E']) {
        return without_exponent(&text).map(|plain| Cow::Owned(plain.into_owned()));
    }
    Decimal::parse(&text).is_some().then_some(text)
}

/// `5.0` is an integer to JSON Schema.
fn without_fraction(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if !text.contains('.') {
        return Some(text);
    }
    let is_whole = Decimal::parse(&text)?.is_whole();
    let (whole, _) = text.split_once('.')?;
    is_whole.then(|| {
        Cow::Owned(if whole.trim_start_matches(['+', '-']).is_empty() { "0" } else { whole }.to_owned())
    })
}

/// What RFC 3339 and ISO 8601 allow and XML Schema does not: small letters, a space for `T`, no seconds.
fn rfc3339(primitive: Primitive, text: Cow<'_, str>) -> Cow<'_, str> {
    let has_time = matches!(primitive, Primitive::DateTime | Primitive::Time);
    if !has_time || !text.is_ascii() {
        return text;
    }
    let mut fixed = text.to_ascii_uppercase();
    if primitive == Primitive::DateTime && fixed.as_bytes().get(10) == Some(&b' ') {
        fixed.replace_range(10..11, "T");
    }
    let time_at = if primitive == Primitive::Time { 0 } else { fixed.find('T').map_or(0, |at| at + 1) };
    let lacks_seconds = fixed.get(time_at..).is_some_and(|time| {
        time.as_bytes().get(2) == Some(&b':')
            && !matches!(time.as_bytes().get(5), Some(b':'))
            && time.len() >= 5
    });
    if lacks_seconds {
        fixed.insert_str(time_at + 5, ":00");
    }
    if fixed == *text { text } else { Cow::Owned(fixed) }
}

fn is_expanded_name(text: &str) -> bool {
    let local = match text.strip_prefix('{') {
        Some(rest) => rest.split_once('}').map(|(_, local)| local),
        None => Some(text),
    };
    local.is_some_and(crate::chars::is_ncname)
}

/// Whether values of the type are qualified names.
pub(super) fn is_name(set: &SchemaSet, id: TypeId) -> bool {
    matches!(
        set.definition(id),
        TypeDefinition::Simple(SimpleType { variety: Variety::Atomic(Primitive::QName), .. })
    )
}

/// Whether values of the type are bytes that may stand beside the envelope.
pub(super) fn is_base64(set: &SchemaSet, id: TypeId) -> bool {
    matches!(
        set.definition(id),
        TypeDefinition::Simple(SimpleType { variety: Variety::Atomic(Primitive::Base64Binary), .. })
    )
}

/// Whether `value` is by itself what the type wants: a number for a number, text for text. What is no simple
/// type takes objects and arrays.
pub(super) fn is_natural(set: &SchemaSet, id: TypeId, value: &Value) -> bool {
    let simple = match set.definition(id) {
        TypeDefinition::Simple(simple) => simple,
        TypeDefinition::Complex(_) => return value.is_object() || value.is_array(),
        TypeDefinition::Any => return false,
    };
    match &simple.variety {
        Variety::List(_) => value.is_array(),
        Variety::Union(members) => members.iter().any(|member| is_natural(set, *member, value)),
        Variety::Atomic(_) if simple.facets.enumeration.is_some() => true,
        Variety::Atomic(Primitive::Boolean) => value.is_boolean(),
        Variety::Atomic(Primitive::Integer | Primitive::Double) => value.is_number(),
        Variety::Atomic(Primitive::Decimal) => value.is_number() || value.is_string(),
        Variety::Atomic(_) => value.is_string(),
    }
}
