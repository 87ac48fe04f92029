//! Between XML and JSON by a schema.
//!
//! An element becomes a value of JSON by its type:
//!
//! | XML Schema | JSON |
//! |---|---|
//! | complex type | object: elements by local name, attributes as `@name`, text beside them as `#text` |
//! | element that may repeat | array; `[]` when it is not there, unless it is one of a choice |
//! | `xsi:nil` | `null` |
//! | `xsi:type` of a derived type | `@xsi:type` beside the members, the name of the type |
//! | list | array |
//! | boolean | `true`, `false` |
//! | integers | number; text of digits beyond 64 bits |
//! | `float`, `double` | number; `"INF"`, `"-INF"`, `"NaN"` |
//! | `decimal` | text, which loses no digit; numbers are taken too |
//! | dates, times, durations, `hexBinary` | text as in XML |
//! | `base64Binary` | text in base64, also when it came as an attachment |
//! | `QName` | text `{namespace}local` |
//! | `anyType`, wildcards | as [`untyped`](crate::untyped) says; scalars by their `xsi:type` |
//!
//! Two elements of one local name in one type are told apart as `{namespace}local`; so is what a wildcard lets
//! in. The order of elements is the schema's: where a choice repeats, each kind keeps its order and the kinds
//! follow each other.
//!
//! Both ways every fault is found and told by a JSON Pointer, at most [`MAX_FAULTS`] of them. Prefixes do not
//! matter; namespaces do.

mod emit;
mod matching;
mod path;
mod read;
mod text;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use crosstie_model::Fault;
use crosstie_model::schema::MAX_FAULTS;
use serde_json::Value;

use crate::attachment::Attachment;
use crate::document::Element;
use crate::writer::Writer;
use crate::xsd::{ElementId, SchemaSet, TypeId};

/// The key of a map's entries among its members; a name that no property has.
pub(crate) const ENTRIES: &str = "{entries}";

/// What an `xs:dateTime` without zone means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zoneless {
    /// It stays without: nobody says what it means.
    #[default]
    Keep,
    /// It is in UTC, and gets a `Z`. For whoever asks for RFC 3339, where a zone is not optional.
    Utc,
}

/// How values are given that JSON has no type for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scalars {
    /// As text.
    #[default]
    Json,
    /// As text that is marked with its type: see [`Tag`](crosstie_model::tagged::Tag).
    Tagged,
}

/// What is done with members of JSON objects that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownMembers {
    /// They are faults.
    #[default]
    Refuse,
    /// They are left out.
    Drop,
}

/// How XML is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// What `xop:Include` may refer to.
    pub attachments: &'a [Attachment],
    /// What dates and times without zone mean.
    pub zoneless: Zoneless,
    /// How decimals, dates, bytes and the like are given.
    pub scalars: Scalars,
}

/// How XML is written.
#[derive(Debug, Default)]
pub struct WriteOptions<'a> {
    /// What is done with members that the schema does not know.
    pub unknown: UnknownMembers,
    /// Where binary values go that are to stand beside the envelope; `None` keeps them all in it.
    pub attach: Option<&'a mut Attach>,
}

/// Binary values taken out of a message.
#[derive(Debug)]
pub struct Attach {
    /// Values from this size on, in bytes, are taken out.
    pub from_bytes: usize,
    /// What their content ids begin with; anything that is unique in the world.
    pub id: String,
    /// Those taken out so far.
    pub attachments: Vec<Attachment>,
}

impl SchemaSet {
    /// The JSON of `element`, which has the name of the declaration `id` or stands for it.
    ///
    /// # Errors
    /// Everything that breaks the schema, with its place in the JSON that it would have become.
    pub fn element_to_json(
        &self,
        id: ElementId,
        element: Element<'_>,
        options: ReadOptions<'_>,
    ) -> Result<Value, Vec<Fault>> {
        let mut reading = read::Reading::new(self, options);
        let value = reading.element(self.declaration(id), element);
        reading.finish(value)
    }

    /// The JSON of `element`, whatever its name, by the type `id`.
    ///
    /// # Errors
    /// As [`element_to_json`](Self::element_to_json).
    pub fn type_to_json(
        &self,
        id: TypeId,
        element: Element<'_>,
        options: ReadOptions<'_>,
    ) -> Result<Value, Vec<Fault>> {
        let mut reading = read::Reading::new(self, options);
        let value = reading.typed(id, element);
        reading.finish(value)
    }

    /// Writes `value` as the element `id`.
    ///
    /// # Errors
    /// Everything in `value` that the schema does not allow. What was written by then is taken back.
    pub fn element_to_xml(
        &self,
        id: ElementId,
        value: &Value,
        writer: &mut Writer,
        options: &mut WriteOptions<'_>,
    ) -> Result<(), Vec<Fault>> {
        let mut writing = write::Writing::new(self, writer, options);
        writing.element(id, value);
        writing.finish()
    }

    /// Writes `value` as an element of the name given, by the type `id`.
    ///
    /// # Errors
    /// As [`element_to_xml`](Self::element_to_xml).
    pub fn type_to_xml(
        &self,
        id: TypeId,
        (namespace, local): (&str, &str),
        value: &Value,
        writer: &mut Writer,
        options: &mut WriteOptions<'_>,
    ) -> Result<(), Vec<Fault>> {
        let mut writing = write::Writing::new(self, writer, options);
        writing.named(id, (namespace, local), value);
        writing.finish()
    }
}
