//! Properties and header fields, to the library's form and back.

use std::collections::BTreeMap;

use bytes::Bytes;
use crosstie_model::outgoing::{AmqpProperties, AmqpValue, OutgoingError, Trouble};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString, ShortString};

/// Delivery modes (AMQP 0-9-1, class `basic`).
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// Most bytes of a message's properties: they travel in one frame.
const MAX_PROPERTIES: usize = 100_000;

/// Text of at most 255 bytes; the library panics at more.
///
/// # Errors
/// There is more.
pub(super) fn short(what: &str, text: &str) -> Result<ShortString, OutgoingError> {
    ShortString::try_new(text)
        .map_err(|_| OutgoingError::new(Trouble::Misuse, format!("{what} has more than 255 bytes")))
}

/// The properties as they are sent.
///
/// # Errors
/// One is longer than AMQP allows, or all of them are.
pub(super) fn to_wire(properties: &AmqpProperties) -> Result<BasicProperties, OutgoingError> {
    let mut wire = BasicProperties::default();
    macro_rules! texts {
        ($($field:ident $with:ident $word:literal),* $(,)?) => {
            $(if let Some(text) = &properties.$field {
                wire = wire.$with(short($word, text)?);
            })*
        };
    }
    texts!(
        content_type with_content_type "content_type",
        content_encoding with_content_encoding "content_encoding",
        correlation_id with_correlation_id "correlation_id",
        reply_to with_reply_to "reply_to",
        expiration with_expiration "expiration",
        message_id with_message_id "message_id",
        kind with_type "type",
        user_id with_user_id "user_id",
        app_id with_app_id "app_id",
    );
    if let Some(persistent) = properties.persistent {
        wire = wire.with_delivery_mode(if persistent { PERSISTENT } else { TRANSIENT });
    }
    if let Some(priority) = properties.priority {
        wire = wire.with_priority(priority);
    }
    if let Some(timestamp) = properties.timestamp {
        wire = wire.with_timestamp(timestamp);
    }
    if !properties.headers.is_empty() {
        if table_bytes(&properties.headers) > MAX_PROPERTIES {
            let text = format!("the headers have more than {MAX_PROPERTIES} bytes");
            return Err(OutgoingError::new(Trouble::Misuse, text));
        }
        wire = wire.with_headers(table_to_wire(&properties.headers)?);
    }
    Ok(wire)
}

fn table_to_wire(table: &BTreeMap<String, AmqpValue>) -> Result<FieldTable, OutgoingError> {
    let mut wire = FieldTable::default();
    for (name, value) in table {
        wire.insert(short("the name of a header", name)?, value_to_wire(value)?);
    }
    Ok(wire)
}

fn value_to_wire(value: &AmqpValue) -> Result<AMQPValue, OutgoingError> {
    Ok(match value {
        AmqpValue::Null => AMQPValue::Void,
        AmqpValue::Bool(flag) => AMQPValue::Boolean(*flag),
        // As most clients write them: headers exchanges tell widths apart.
        AmqpValue::Int(number) => match i32::try_from(*number) {
            Ok(number) => AMQPValue::LongInt(number),
            Err(_) => AMQPValue::LongLongInt(*number),
        },
        AmqpValue::Float(number) => AMQPValue::Double(*number),
        AmqpValue::Decimal { scale, value } => {
            AMQPValue::DecimalValue(DecimalValue { scale: *scale, value: *value })
        }
        AmqpValue::Text(text) => AMQPValue::LongString(LongString::from(text.as_bytes().to_vec())),
        AmqpValue::Bytes(bytes) => AMQPValue::ByteArray(ByteArray::from(bytes.to_vec())),
        AmqpValue::Timestamp(seconds) => AMQPValue::Timestamp(*seconds),
        AmqpValue::List(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(value_to_wire).collect();
            AMQPValue::FieldArray(FieldArray::from(items?))
        }
        AmqpValue::Table(table) => AMQPValue::FieldTable(table_to_wire(table)?),
    })
}

/// About how many bytes the fields take.
fn table_bytes(table: &BTreeMap<String, AmqpValue>) -> usize {
    fn value_bytes(value: &AmqpValue) -> usize {
        match value {
            AmqpValue::Text(text) => 5 + text.len(),
            AmqpValue::Bytes(bytes) => 5 + bytes.len(),
            AmqpValue::List(items) => 5 + items.iter().map(value_bytes).sum::<usize>(),
            AmqpValue::Table(table) => 5 + table_bytes(table),
            _ => 9,
        }
    }
    table.iter().map(|(name, value)| 1 + name.len() + value_bytes(value)).sum()
}

/// The properties of a message that came.
pub(super) fn from_wire(wire: &BasicProperties) -> AmqpProperties {
    let text = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
    AmqpProperties {
        content_type: text(wire.content_type()),
        content_encoding: text(wire.content_encoding()),
        headers: wire.headers().as_ref().map(table_from_wire).unwrap_or_default(),
        persistent: wire.delivery_mode().map(|mode| mode == PERSISTENT),
        priority: *wire.priority(),
        correlation_id: text(wire.correlation_id()),
        reply_to: text(wire.reply_to()),
        expiration: text(wire.expiration()),
        message_id: text(wire.message_id()),
        timestamp: *wire.timestamp(),
        kind: text(wire.kind()),
        user_id: text(wire.user_id()),
        app_id: text(wire.app_id()),
    }
}

fn table_from_wire(table: &FieldTable) -> BTreeMap<String, AmqpValue> {
    table.into_iter().map(|(name, value)| (name.as_str().to_owned(), value_from_wire(value))).collect()
}

fn value_from_wire(value: &AMQPValue) -> AmqpValue {
    match value {
        AMQPValue::Boolean(flag) => AmqpValue::Bool(*flag),
        AMQPValue::ShortShortInt(number) => AmqpValue::Int((*number).into()),
        AMQPValue::ShortShortUInt(number) => AmqpValue::Int((*number).into()),
        AMQPValue::ShortInt(number) => AmqpValue::Int((*number).into()),
        AMQPValue::ShortUInt(number) => AmqpValue::Int((*number).into()),
        AMQPValue::LongInt(number) => AmqpValue::Int((*number).into()),
        AMQPValue::LongUInt(number) => AmqpValue::Int((*number).into()),
        AMQPValue::LongLongInt(number) => AmqpValue::Int(*number),
        AMQPValue::Float(number) => AmqpValue::Float((*number).into()),
        AMQPValue::Double(number) => AmqpValue::Float(*number),
        AMQPValue::DecimalValue(number) => AmqpValue::Decimal { scale: number.scale, value: number.value },
        AMQPValue::ShortString(text) => AmqpValue::Text(text.as_str().to_owned()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => AmqpValue::Text(text.to_owned()),
            Err(_) => AmqpValue::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::FieldArray(items) => {
            AmqpValue::List(items.as_slice().iter().map(value_from_wire).collect())
        }
        AMQPValue::Timestamp(seconds) => AmqpValue::Timestamp(*seconds),
        AMQPValue::FieldTable(table) => AmqpValue::Table(table_from_wire(table)),
        AMQPValue::ByteArray(bytes) => AmqpValue::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::Void => AmqpValue::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> AmqpProperties {
        let text = |text: &str| Some(text.to_owned());
        let headers = [
            ("null", AmqpValue::Null),
            ("flag", AmqpValue::Bool(true)),
            ("small", AmqpValue::Int(-7)),
            ("large", AmqpValue::Int(i64::MAX)),
            ("float", AmqpValue::Float(2.5)),
            ("decimal", AmqpValue::Decimal { scale: 2, value: 1995 }),
            ("text", "grüße".into()),
            ("bytes", AmqpValue::Bytes(Bytes::from_static(b"\x00\xff"))),
            ("time", AmqpValue::Timestamp(1_700_000_000)),
            ("list", AmqpValue::List(vec![AmqpValue::Int(1), "x".into()])),
            ("table", AmqpValue::Table([("a".to_owned(), AmqpValue::Null)].into())),
        ];
        AmqpProperties {
            content_type: text("application/json"),
            content_encoding: text("gzip"),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            persistent: Some(true),
            priority: Some(9),
            correlation_id: text("c"),
            reply_to: text("r"),
            expiration: text("60000"),
            message_id: text("m"),
            timestamp: Some(1_700_000_000),
            kind: text("order.made"),
            user_id: text("u"),
            app_id: text("a"),
        }
    }

    #[test]
    fn what_was_sent_is_what_came() {
        for properties in [full(), AmqpProperties::default()] {
            assert_eq!(from_wire(&to_wire(&properties).unwrap()), properties);
        }
    }

    #[test]
    fn what_is_too_long_is_refused_and_never_a_panic() {
        let long = AmqpProperties { message_id: Some("é".repeat(128)), ..AmqpProperties::default() };
        let name = AmqpProperties { headers: [("n".repeat(256), AmqpValue::Null)].into(), ..long.clone() };
        let much = AmqpProperties {
            headers: [("n".to_owned(), "x".repeat(MAX_PROPERTIES).into())].into(),
            ..AmqpProperties::default()
        };
        for properties in [long, name, much] {
            assert_eq!(to_wire(&properties).unwrap_err().trouble, Trouble::Misuse);
        }
    }
}
