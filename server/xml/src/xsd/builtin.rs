//! The built-in types, and the namespaces of other standards that schemas lean on.

use super::facets::{Bound, Facets};
use super::model::{Primitive, SimpleType, TypeDefinition, TypeId, Variety};
use crate::lexical::{Form, WhiteSpace};
use crate::namespace::{QName, XML, XSD};

/// `xs:anyType`.
pub(crate) const ANY_TYPE: TypeId = TypeId(0);
/// `xs:anySimpleType`.
pub(crate) const ANY_SIMPLE_TYPE: TypeId = TypeId(1);
/// `xs:string`.
pub(crate) const STRING: TypeId = TypeId(2);

/// What a built-in type adds to its base.
enum Adds {
    Nothing,
    Space(WhiteSpace),
    Form(Form),
    Range(&'static str, &'static str),
}

use Adds::{Nothing, Range, Space};
use Primitive as P;

/// Name, base, what it is, what it adds; in an order in which bases come first, from [`STRING`] on.
const ATOMIC: &[(&str, &str, Primitive, Adds)] = &[
    ("string", "anySimpleType", P::String, Nothing),
    ("normalizedString", "string", P::String, Space(WhiteSpace::Replace)),
    ("token", "normalizedString", P::String, Space(WhiteSpace::Collapse)),
    ("language", "token", P::String, Adds::Form(Form::Language)),
    ("NMTOKEN", "token", P::String, Adds::Form(Form::NmToken)),
    ("Name", "token", P::String, Adds::Form(Form::Name)),
    ("NCName", "Name", P::String, Adds::Form(Form::NcName)),
    ("ID", "NCName", P::String, Nothing),
    ("IDREF", "NCName", P::String, Nothing),
    ("ENTITY", "NCName", P::String, Nothing),
    ("boolean", "anySimpleType", P::Boolean, Nothing),
    ("decimal", "anySimpleType", P::Decimal, Nothing),
    ("integer", "decimal", P::Integer, Nothing),
    ("long", "integer", P::Integer, Range("-9223372036854775808", "9223372036854775807")),
    ("int", "long", P::Integer, Range("-2147483648", "2147483647")),
    ("short", "int", P::Integer, Range("-32768", "32767")),
    ("byte", "short", P::Integer, Range("-128", "127")),
    ("nonNegativeInteger", "integer", P::Integer, Range("0", "")),
    ("positiveInteger", "nonNegativeInteger", P::Integer, Range("1", "")),
    ("unsignedLong", "nonNegativeInteger", P::Integer, Range("0", "18446744073709551615")),
    ("unsignedInt", "unsignedLong", P::Integer, Range("0", "4294967295")),
    ("unsignedShort", "unsignedInt", P::Integer, Range("0", "65535")),
    ("unsignedByte", "unsignedShort", P::Integer, Range("0", "255")),
    ("nonPositiveInteger", "integer", P::Integer, Range("", "0")),
    ("negativeInteger", "nonPositiveInteger", P::Integer, Range("", "-1")),
    ("float", "anySimpleType", P::Double, Nothing),
    ("double", "anySimpleType", P::Double, Nothing),
    ("duration", "anySimpleType", P::Duration, Nothing),
    ("dayTimeDuration", "duration", P::Duration, Nothing),
    ("yearMonthDuration", "duration", P::Duration, Nothing),
    ("dateTime", "anySimpleType", P::DateTime, Nothing),
    ("dateTimeStamp", "dateTime", P::DateTime, Nothing),
    ("time", "anySimpleType", P::Time, Nothing),
    ("date", "anySimpleType", P::Date, Nothing),
    ("gYearMonth", "anySimpleType", P::YearMonth, Nothing),
    ("gYear", "anySimpleType", P::Year, Nothing),
    ("gMonthDay", "anySimpleType", P::MonthDay, Nothing),
    ("gDay", "anySimpleType", P::Day, Nothing),
    ("gMonth", "anySimpleType", P::Month, Nothing),
    ("hexBinary", "anySimpleType", P::HexBinary, Nothing),
    ("base64Binary", "anySimpleType", P::Base64Binary, Nothing),
    ("anyURI", "anySimpleType", P::AnyUri, Nothing),
    ("QName", "anySimpleType", P::QName, Nothing),
    ("NOTATION", "anySimpleType", P::QName, Nothing),
];

const LISTS: [(&str, &str); 3] = [("NMTOKENS", "NMTOKEN"), ("IDREFS", "IDREF"), ("ENTITIES", "ENTITY")];

/// The built-in types, each at the place of its number, with their names.
pub(crate) fn types() -> Vec<(QName, TypeDefinition)> {
    let name = |local: &'static str| QName::new(XSD, local);
    let simple = |local, base, variety, facets| {
        let definition = SimpleType { name: Some(name(local)), base, variety, facets };
        (name(local), TypeDefinition::Simple(definition))
    };
    let mut types = vec![
        (name("anyType"), TypeDefinition::Any),
        simple("anySimpleType", Some(ANY_TYPE), Variety::Atomic(P::Any), Facets::new(WhiteSpace::Preserve)),
    ];
    let number = |types: &[(QName, TypeDefinition)], local: &str| {
        let at = types.iter().position(|(name, _)| &*name.local == local).unwrap_or_default();
        TypeId(u32::try_from(at).unwrap_or_default())
    };
    for (local, base, primitive, adds) in ATOMIC {
        let base = number(&types, base);
        let mut facets = match types.get(base.0 as usize) {
            Some((_, TypeDefinition::Simple(base))) => base.facets.clone(),
            _ => Facets::new(WhiteSpace::Collapse),
        };
        if base == ANY_SIMPLE_TYPE && *primitive != P::String {
            facets.white_space = WhiteSpace::Collapse;
        }
        let bound = |text: &str| (!text.is_empty()).then(|| Bound { text: text.into(), inclusive: true });
        match adds {
            Nothing => {}
            Space(rule) => facets.white_space = *rule,
            Adds::Form(form) => facets.form = Some(*form),
            Range(min, max) => {
                facets.min = bound(min).or(facets.min);
                facets.max = bound(max).or(facets.max);
            }
        }
        types.push(simple(local, Some(base), Variety::Atomic(*primitive), facets));
    }
    for (local, item) in LISTS {
        let item = number(&types, item);
        let facets = Facets { min_length: Some(1), ..Facets::of_list() };
        types.push(simple(local, Some(ANY_SIMPLE_TYPE), Variety::List(item), facets));
    }
    types
}

/// Namespaces whose schemas are known here and never asked for.
pub(crate) const KNOWN_SCHEMAS: [(&str, &str); 2] = [
    (
        XML,
        r#"<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="http://www.w3.org/XML/1998/namespace">
<xs:attribute name="lang" type="xs:string"/><xs:attribute name="base" type="xs:anyURI"/>
<xs:attribute name="id" type="xs:ID"/><xs:attribute name="space"><xs:simpleType><xs:restriction base="xs:NCName">
<xs:enumeration value="default"/><xs:enumeration value="preserve"/></xs:restriction></xs:simpleType></xs:attribute>
<xs:attributeGroup name="specialAttrs"><xs:attribute ref="xml:base"/><xs:attribute ref="xml:lang"/>
<xs:attribute ref="xml:space"/><xs:attribute ref="xml:id"/></xs:attributeGroup></xs:schema>"#,
    ),
    (
        "http://www.w3.org/2005/05/xmlmime",
        r#"<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:m="http://www.w3.org/2005/05/xmlmime"
 targetNamespace="http://www.w3.org/2005/05/xmlmime"><xs:attribute name="contentType"><xs:simpleType>
<xs:restriction base="xs:string"><xs:minLength value="3"/></xs:restriction></xs:simpleType></xs:attribute>
<xs:attribute name="expectedContentTypes" type="xs:string"/>
<xs:complexType name="base64Binary"><xs:simpleContent><xs:extension base="xs:base64Binary">
<xs:attribute ref="m:contentType"/></xs:extension></xs:simpleContent></xs:complexType>
<xs:complexType name="hexBinary"><xs:simpleContent><xs:extension base="xs:hexBinary">
<xs:attribute ref="m:contentType"/></xs:extension></xs:simpleContent></xs:complexType></xs:schema>"#,
    ),
];
