//! Values in JSON for which JSON has no type, marked with the type they have: an object of one member, called
//! `#` and the type's name in XML Schema, such as `{"#decimal": "1.50"}`. No element of XML has such a name, and
//! no data that travels as plain JSON is ever marked: those who ask for marks get them.

use serde_json::{Map, Value};

/// A type that JSON lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    /// A number with all its digits.
    Decimal,
    /// A whole number of more than 64 bits.
    Integer,
    /// `INF`, `-INF` or `NaN`.
    Double,
    /// A date with time, with or without its zone.
    DateTime,
    /// A date, with or without its zone.
    Date,
    /// A time of day, with or without its zone.
    Time,
    /// Bytes, in base64.
    Base64,
}

impl Tag {
    const ALL: [Self; 7] =
        [Self::Decimal, Self::Integer, Self::Double, Self::DateTime, Self::Date, Self::Time, Self::Base64];

    /// What the one member is called.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Decimal => "#decimal",
            Self::Integer => "#integer",
            Self::Double => "#double",
            Self::DateTime => "#dateTime",
            Self::Date => "#date",
            Self::Time => "#time",
            Self::Base64 => "#base64Binary",
        }
    }

    /// `text` with this mark.
    #[must_use]
    pub fn mark(self, text: String) -> Value {
        Value::Object(Map::from_iter([(self.key().to_owned(), Value::String(text))]))
    }

    /// The mark on `members` and the text that has it; `None` when they are an object's own.
    #[must_use]
    pub fn of(members: &Map<String, Value>) -> Option<(Self, &str)> {
        let (key, Value::String(text)) = members.iter().next().filter(|_| members.len() == 1)? else {
            return None;
        };
        let tag = Self::ALL.into_iter().find(|tag| tag.key() == key)?;
        Some((tag, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mark_is_found_again_and_nothing_else_is_taken_for_one() {
        for tag in Tag::ALL {
            let Value::Object(marked) = tag.mark("1".to_owned()) else { panic!("{tag:?}") };
            assert_eq!(Tag::of(&marked), Some((tag, "1")));
        }
        for other in
            [json!({}), json!({"#text": "1"}), json!({"#decimal": 1}), json!({"#decimal": "1", "@a": "b"})]
        {
            assert_eq!(Tag::of(other.as_object().unwrap()), None, "{other}");
        }
    }
}
