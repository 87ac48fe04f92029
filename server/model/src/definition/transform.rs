//! Bodies transformed on their way through a channel.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::DefinitionName;
use crate::failure::Fault;

/// The fields of [`Transforms`].
pub(super) const FIELDS: [&str; 2] = ["request_transform", "response_transform"];

/// What a channel makes of bodies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transforms {
    /// What is made of the body of each request that has one, step by step, before it is handed on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub request_transform: Vec<TransformStep>,
    /// What is made of the body of each answer that has one, step by step, before it is handed back. Answers of
    /// another status than 2xx are handed back as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub response_transform: Vec<TransformStep>,
}

/// One step: one of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformStep {
    /// XML is transformed by a stylesheet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xslt: Option<XsltStep>,
    /// XML becomes JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xml_to_json: Option<XmlToJson>,
    /// JSON becomes XML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_to_xml: Option<JsonToXml>,
}

/// A transformation by a stylesheet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XsltStep {
    /// The stylesheet.
    pub stylesheet: DefinitionName,
    /// Its parameters, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

/// How XML becomes JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XmlToJson {
    /// Elements, by local name, that become arrays even where there is one of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub arrays: BTreeSet<String>,
}

/// How JSON becomes XML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonToXml {
    /// The name of the document's element.
    #[schemars(length(min = 1, max = 200))]
    pub root: String,
}

impl Transforms {
    /// The stylesheets it uses, each with the pointer (RFC 6901) of the field that names it.
    #[must_use]
    pub fn stylesheets(&self) -> Vec<(String, &DefinitionName)> {
        self.steps()
            .filter_map(|(at, step)| Some((format!("{at}/xslt/stylesheet"), &step.xslt.as_ref()?.stylesheet)))
            .collect()
    }

    /// Whether bodies stay as they are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.request_transform.is_empty() && self.response_transform.is_empty()
    }

    /// All steps, each with its pointer.
    pub fn steps(&self) -> impl Iterator<Item = (String, &TransformStep)> {
        [&self.request_transform, &self.response_transform].into_iter().zip(FIELDS).flat_map(
            |(steps, field)| {
                steps.iter().enumerate().map(move |(index, step)| (format!("/{field}/{index}"), step))
            },
        )
    }

    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let wrong = |(pointer, step): (String, &TransformStep)| {
            let fields = [step.xslt.is_some(), step.xml_to_json.is_some(), step.json_to_xml.is_some()];
            let detail = match fields.iter().filter(|is_there| **is_there).count() {
                1 => return None,
                0 => "says nothing: it is xslt, xml_to_json or json_to_xml",
                _ => "is one of xslt, xml_to_json and json_to_xml; make several steps of it",
            };
            Some(Fault { pointer, detail: detail.to_owned() })
        };
        self.steps().filter_map(wrong).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::definition::{Definition, DefinitionId, DefinitionKind, references_in};
    use serde_json::{Value, json};

    fn definition(steps: &Value) -> Result<Definition, Vec<crate::Fault>> {
        let id = DefinitionId { kind: DefinitionKind::Channel, name: "a".parse().unwrap() };
        let body = json!({"type": "passthrough", "path": "/a", "outgoing": "b", "response_transform": steps});
        Definition::from_value(id, body)
    }

    #[test]
    fn a_step_is_one_thing() {
        let steps =
            json!([{"xslt": {"stylesheet": "s"}}, {"xml_to_json": {}}, {"json_to_xml": {"root": "r"}}]);
        let sound = definition(&steps).unwrap();
        assert_eq!(sound.to_value().unwrap()["response_transform"], steps);
        let named: Vec<_> =
            sound.references().into_iter().map(|(pointer, id)| format!("{pointer} {id}")).collect();
        assert_eq!(named, ["/outgoing outgoing/b", "/response_transform/0/xslt/stylesheet stylesheet/s"]);
        let told = |steps: &Value| {
            let faults = definition(steps).unwrap_err();
            faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
        };
        assert_eq!(told(&json!([{}])), ["/response_transform/0"]);
        assert_eq!(
            told(&json!([{"xml_to_json": {}, "json_to_xml": {"root": "r"}}])),
            ["/response_transform/0"]
        );
        assert_eq!(told(&json!([{"xslt": {}}])), ["/response_transform/0/xslt/stylesheet"]);
        assert_eq!(told(&json!([{"yaml": {}}])), ["/response_transform/0/yaml"]);
    }

    #[test]
    fn what_a_faulty_channel_needs_is_found() {
        let body = json!({"type": "rest", "request_transform": [{}, {"xslt": {"stylesheet": "s"}}, 7]});
        let found: Vec<_> = references_in(DefinitionKind::Channel, &body)
            .into_iter()
            .map(|(pointer, id)| format!("{pointer} {id}"))
            .collect();
        assert_eq!(found, ["/request_transform/1/xslt/stylesheet stylesheet/s"]);
    }
}
