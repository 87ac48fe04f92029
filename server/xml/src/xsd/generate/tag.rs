//! The parts of a schema being made: small trees that can be compared, then written.

use super::super::JSON_ANNOTATIONS;
use super::What;
use crate::namespace::XSD;
use crate::writer::Writer;

/// An element of XML Schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    name: &'static str,
    attributes: Vec<(&'static str, Text)>,
    annotations: Vec<(&'static str, String)>,
    documentation: Option<String>,
    pub(super) children: Vec<Tag>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    Plain(String),
    Name(TypeRef),
    Names(Vec<TypeRef>),
}

/// A type that is referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TypeRef {
    /// A built-in one.
    Xs(&'static str),
    /// One of the schema being made.
    Own(String),
}

impl Tag {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            attributes: Vec::new(),
            annotations: Vec::new(),
            documentation: None,
            children: Vec::new(),
        }
    }

    pub(super) fn with(mut self, attribute: &'static str, value: &str) -> Self {
        self.attributes.push((attribute, Text::Plain(value.to_owned())));
        self
    }

    pub(super) fn naming(mut self, attribute: &'static str, value: TypeRef) -> Self {
        self.attributes.push((attribute, Text::Name(value)));
        self
    }

    pub(super) fn naming_all(mut self, attribute: &'static str, values: Vec<TypeRef>) -> Self {
        self.attributes.push((attribute, Text::Names(values)));
        self
    }

    /// Adds what only readers who make JSON of it need.
    pub(super) fn annotated(mut self, annotation: &'static str, value: &str) -> Self {
        self.annotations.push((annotation, value.to_owned()));
        self
    }

    pub(super) fn documented(mut self, text: Option<&str>) -> Self {
        self.documentation = text.filter(|text| !text.is_empty()).map(str::to_owned);
        self
    }

    pub(super) fn child(mut self, child: Tag) -> Self {
        self.children.push(child);
        self
    }

    /// Gives an element its type.
    pub(super) fn holding(self, what: What) -> Self {
        match what {
            What::Ref(name) => self.naming("type", name),
            What::Inline(tag) => self.child(tag),
        }
    }

    /// Puts the name before the other attributes, where readers look for it.
    pub(super) fn named_first(mut self) -> Self {
        self.attributes.sort_by_key(|(attribute, _)| *attribute != "name");
        self
    }

    /// Says of each element within this one that it is in the schema's namespace.
    pub(super) fn qualify(&mut self) {
        for child in &mut self.children {
            child.qualify();
            if child.name == "element" {
                child.attributes.push(("form", Text::Plain("qualified".to_owned())));
            }
        }
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.attributes.iter().any(|(attribute, text)| {
            *attribute == "name" && matches!(text, Text::Plain(text) if text == name)
        })
    }

    pub(super) fn has_annotations(&self) -> bool {
        !self.annotations.is_empty() || self.children.iter().any(Self::has_annotations)
    }

    pub(super) fn write(&self, writer: &mut Writer, namespace: &str) {
        writer.start(XSD, self.name);
        for (attribute, text) in &self.attributes {
            let text = match text {
                Text::Plain(text) => text.clone(),
                Text::Name(name) => name.written(writer, namespace),
                Text::Names(names) => {
                    names.iter().map(|name| name.written(writer, namespace)).collect::<Vec<_>>().join(" ")
                }
            };
            writer.attribute("", attribute, &text);
        }
        for (annotation, value) in &self.annotations {
            writer.attribute(JSON_ANNOTATIONS, annotation, value);
        }
        if let Some(text) = &self.documentation {
            writer.start(XSD, "annotation");
            writer.leaf(XSD, "documentation", text);
            writer.end();
        }
        self.children.iter().for_each(|child| child.write(writer, namespace));
        writer.end();
    }
}

impl TypeRef {
    fn written(&self, writer: &mut Writer, namespace: &str) -> String {
        match self {
            Self::Xs(local) => writer.name(XSD, local),
            Self::Own(local) => writer.name(namespace, local),
        }
    }
}
