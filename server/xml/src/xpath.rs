//! Location paths: the part of XPath 1.0 that finds a value in a message.
//!
//! ```text
//! /s:Envelope/s:Body/b:GetInvoice/b:customer/@country
//! //b:line[2]/b:article        //*:line[@unit='kg']/*:count        /order/item[kind='gift']/text()
//! ```
//!
//! Steps go down, from the document: to children (`/`), to descendants (`//`), to attributes (`@`), to text
//! (`text()`, last). A name has a prefix that the path is given a namespace for; without one it is in no namespace;
//! `*` is any name, `p:*` any of a namespace, and `*:name` (of XPath 2.0) that name in any namespace. A predicate is a
//! place among siblings of the name, counted from 1, or compares a child, an attribute or the element itself (`.`)
//! with text. Nothing else of XPath is understood; each step costs a walk over the document at most, and there are at
//! most [`MAX_STEPS`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use crate::chars::is_ncname;
use crate::document::{Document, Element, Node};

/// Most steps of a path.
pub const MAX_STEPS: usize = 32;

/// A location path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationPath {
    steps: Vec<Step>,
    end: End,
}

/// A text that is no location path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin at the document.
    #[error("a path begins with / or //")]
    Start,
    /// It is not of the form of a path from here on.
    #[error("{0:?} is no step of a path")]
    Step(String),
    /// A prefix without namespace.
    #[error("the prefix {0:?} has no namespace")]
    Prefix(String),
    /// Too much of it.
    #[error("a path has at most {MAX_STEPS} steps")]
    TooLong,
}

/// What a path leads to once its steps are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Elements: all text in them.
    Elements,
    /// Their own text.
    Text,
    /// Attributes.
    Attribute(NameTest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    is_deep: bool,
    name: NameTest,
    predicates: Vec<Predicate>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NameTest {
    /// `None` for any.
    namespace: Option<String>,
    /// `None` for any.
    local: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Predicate {
    Place(usize),
    Equals(Operand, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand {
    Itself,
    Child(NameTest),
    Attribute(NameTest),
}

impl LocationPath {
    /// Reads a path, whose prefixes stand for `namespaces`.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn parse(text: &str, namespaces: &BTreeMap<String, String>) -> Result<Self, PathError> {
        let mut parser = Parser { rest: text.trim(), namespaces };
        if !parser.rest.starts_with('/') {
            return Err(PathError::Start);
        }
        let (mut steps, mut end) = (Vec::new(), End::Elements);
        while !parser.rest.is_empty() {
            if end != End::Elements || !parser.take("/") {
                return Err(parser.wrong());
            }
            let is_deep = parser.take("/");
            if steps.len() == MAX_STEPS {
                return Err(PathError::TooLong);
            }
            let is_end = parser.rest.starts_with('@') || parser.rest.starts_with("text()");
            if is_end && is_deep {
                // `//@a` is an attribute of any element.
                steps.push(Step { is_deep, name: NameTest::ANY, predicates: Vec::new() });
            }
            if parser.take("@") {
                end = End::Attribute(parser.name()?);
            } else if parser.take("text()") {
                end = End::Text;
            } else {
                let name = parser.name()?;
                steps.push(Step { is_deep, name, predicates: parser.predicates()? });
            }
        }
        if steps.is_empty() { Err(PathError::Step(text.to_owned())) } else { Ok(Self { steps, end }) }
    }

    /// The values that it finds in `document`, in no order. Each is put together when it is asked for: those of
    /// elements that stand in each other hold the same text, and all of them together would be many times the
    /// document.
    pub fn values<'s, 'd: 's>(
        &'s self,
        document: &'d Document<'d>,
    ) -> Box<dyn Iterator<Item = Cow<'d, str>> + 's> {
        let mut found: Option<Vec<Element<'d>>> = None;
        for step in &self.steps {
            found = Some(step.take(document.root(), found));
        }
        let found = found.unwrap_or_default().into_iter();
        match &self.end {
            End::Elements => Box::new(found.map(all_text)),
            End::Text => Box::new(found.map(|element| element.text()).filter(|text| !text.is_empty())),
            End::Attribute(name) => Box::new(
                found
                    .flat_map(|element| element.attributes())
                    .filter(move |attribute| name.is(attribute.namespace, attribute.local))
                    .map(|attribute| Cow::Borrowed(attribute.value)),
            ),
        }
    }
}

impl Step {
    /// Where this step leads from `before`, or from the document.
    fn take<'d>(&self, root: Element<'d>, before: Option<Vec<Element<'d>>>) -> Vec<Element<'d>> {
        let mut found = Vec::new();
        let Some(before) = before else {
            self.among([root].into_iter(), &mut found);
            if self.is_deep {
                let mut parents = vec![root];
                while let Some(parent) = parents.pop() {
                    self.among(parent.elements(), &mut found);
                    parents.extend(parent.elements());
                }
            }
            return found;
        };
        if !self.is_deep {
            before.into_iter().for_each(|parent| self.among(parent.elements(), &mut found));
            return found;
        }
        // Elements may stand in each other: each is looked into once.
        let mut seen = HashSet::new();
        let mut parents = before;
        while let Some(parent) = parents.pop() {
            if seen.insert(parent.index()) {
                self.among(parent.elements(), &mut found);
                parents.extend(parent.elements());
            }
        }
        found
    }

    /// Those of `siblings` that the step means.
    fn among<'d>(&self, siblings: impl Iterator<Item = Element<'d>>, found: &mut Vec<Element<'d>>) {
        let named = siblings.filter(|element| self.name.is(element.namespace(), element.local()));
        if self.predicates.is_empty() {
            return found.extend(named);
        }
        let mut left: Vec<Element<'d>> = named.collect();
        for predicate in &self.predicates {
            left = match predicate {
                Predicate::Place(place) => left.get(place - 1).copied().into_iter().collect(),
                Predicate::Equals(operand, text) => {
                    left.into_iter().filter(|element| operand.equals(*element, text)).collect()
                }
            };
        }
        found.extend(left);
    }
}

impl Operand {
    fn equals(&self, element: Element<'_>, text: &str) -> bool {
        match self {
            Self::Itself => all_text(element) == text,
            Self::Child(name) => element
                .elements()
                .filter(|child| name.is(child.namespace(), child.local()))
                .any(|child| all_text(child) == text),
            Self::Attribute(name) => element
                .attributes()
                .any(|attribute| name.is(attribute.namespace, attribute.local) && attribute.value == text),
        }
    }
}

impl NameTest {
    const ANY: Self = Self { namespace: None, local: None };

    fn is(&self, namespace: &str, local: &str) -> bool {
        self.local.as_deref().is_none_or(|own| own == local)
            && self.namespace.as_deref().is_none_or(|own| own == namespace)
    }
}

/// All text in an element, that of its descendants included.
fn all_text(element: Element<'_>) -> Cow<'_, str> {
    if element.elements().next().is_none() {
        return element.text();
    }
    let mut all = String::new();
    append(element, &mut all);
    Cow::Owned(all)
}

/// Recursion is bounded by the depth that documents may have.
fn append(element: Element<'_>, all: &mut String) {
    for child in element.children() {
        match child {
            Node::Text(text) => all.push_str(text),
            Node::Element(element) => append(element, all),
        }
    }
}

struct Parser<'t> {
    rest: &'t str,
    namespaces: &'t BTreeMap<String, String>,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn wrong(&self) -> PathError {
        PathError::Step(self.rest.chars().take(40).collect())
    }

    fn name(&mut self) -> Result<NameTest, PathError> {
        let end = self.rest.find(['/', '[', ']', '=', '@', ' ']).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let (prefix, local) = match name.split_once(':') {
            Some((prefix, local)) => (Some(prefix), local),
            None => (None, name),
        };
        if !(local == "*" || is_ncname(local)) {
            return Err(self.wrong());
        }
        let namespace = match (prefix, local) {
            (None, "*") | (Some("*"), _) => None,
            (None, _) => Some(String::new()),
            (Some(prefix), _) => {
                let namespace = self.namespaces.get(prefix);
                Some(namespace.ok_or_else(|| PathError::Prefix(prefix.to_owned()))?.clone())
            }
        };
        self.rest = rest;
        Ok(NameTest { namespace, local: (local != "*").then(|| local.to_owned()) })
    }

    fn predicates(&mut self) -> Result<Vec<Predicate>, PathError> {
        let mut predicates = Vec::new();
        while self.take("[") {
            let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
            let predicate = if digits > 0 {
                let (place, rest) = self.rest.split_at(digits);
                let place = place.parse().ok().filter(|place| *place > 0).ok_or_else(|| self.wrong())?;
                self.rest = rest;
                Predicate::Place(place)
            } else {
                self.comparison()?
            };
            if !self.take("]") {
                return Err(self.wrong());
            }
            predicates.push(predicate);
        }
        Ok(predicates)
    }

    fn comparison(&mut self) -> Result<Predicate, PathError> {
        let operand = if self.take("@") {
            Operand::Attribute(self.name()?)
        } else if self.take(".") {
            Operand::Itself
        } else {
            Operand::Child(self.name()?)
        };
        self.rest = self.rest.trim_start();
        if !self.take("=") {
            return Err(self.wrong());
        }
        self.rest = self.rest.trim_start();
        let quote =
            self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or_else(|| self.wrong())?;
        let quoted = self.rest.get(1..).unwrap_or_default();
        let (text, rest) = quoted.split_once(quote).ok_or_else(|| self.wrong())?;
        let text = text.to_owned();
        self.rest = rest;
        Ok(Predicate::Equals(operand, text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Limits;

    const ORDER: &str = "<o:order xmlns:o='urn:o' xmlns:p='urn:p' id='7'><o:line unit='kg' p:unit='x'><o:article>Apples</o:article>
        <o:count>3</o:count></o:line><o:line><o:article>B<b>a</b>g</o:article><o:count>1</o:count>
        <o:line><o:article>inner</o:article></o:line></o:line><plain>a<!-- c -->b</plain></o:order>";

    fn namespaces() -> BTreeMap<String, String> {
        [("o", "urn:o"), ("p", "urn:p")].map(|(a, b)| (a.to_owned(), b.to_owned())).into()
    }

    fn values(path: &str) -> Vec<String> {
        let document = Document::parse(ORDER, &Limits::default()).unwrap();
        let path = LocationPath::parse(path, &namespaces()).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut values: Vec<_> = path.values(&document).map(Cow::into_owned).collect();
        values.sort();
        values
    }

    #[test]
    fn steps_find_what_xpath_finds() {
        for (path, expected) in [
            ("/o:order/@id", &["7"][..]),
            ("/o:order/o:line/o:article", &["Apples", "Bag"]),
            ("//o:article", &["Apples", "Bag", "inner"]),
            ("/o:order//o:line//o:article", &["Apples", "Bag", "inner"]),
            ("//o:article/text()", &["Apples", "Bg", "inner"]),
            ("/o:order/o:line[2]/o:count", &["1"]),
            ("//o:line[1]/o:article", &["Apples", "inner"]),
            ("/*/*:line[@unit='kg']/o:count", &["3"]),
            ("//*:line[@p:unit=\"x\"]/o:count", &["3"]),
            ("//o:line[o:article = 'Bag']/o:count", &["1"]),
            ("//o:article[.='Bag']", &["Bag"]),
            ("/o:order/plain", &["ab"]),
            ("/o:order/o:plain", &[]),
            ("/o:order/o:*[3]", &[]),
            ("//@unit", &["kg"]),
            ("//@p:*", &["x"]),
            ("/order", &[]),
            ("/o:line", &[]),
        ] {
            assert_eq!(values(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [
            "", "/", "//", "a", "/a/", "/a[", "/a[0]", "/a[b]", "/a[b='c]", "/a/@b/c", "/a b", "/text()",
            "/a|/b", "/a:",
        ] {
            assert!(LocationPath::parse(path, &namespaces()).is_err(), "{path}");
        }
        assert_eq!(LocationPath::parse("/x:a", &namespaces()), Err(PathError::Prefix("x".into())));
        assert_eq!(LocationPath::parse(&"/a".repeat(33), &namespaces()), Err(PathError::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail_otherwise(text in "[/@*:\\[\\]=.'a-c0-2 ()]{0,24}") {
            if let Ok(path) = LocationPath::parse(&text, &namespaces()) {
                let document = Document::parse(ORDER, &Limits::default()).unwrap();
                path.values(&document).for_each(drop);
            }
        }
    }
}
