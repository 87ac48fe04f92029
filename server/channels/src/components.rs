//! What the generated documents, OpenAPI and OpenRPC, share: schemas under `components/schemas`, and the texts
//! of a docstring. Services declare self-contained JSON Schemas whose references point into their own
//! `$defs`; in one document these move to components, and references with them.

use serde_json::{Map, Value, json};

/// The components collected so far.
pub(crate) struct Schemas {
    known: Map<String, Value>,
}

impl Schemas {
    /// A document's own schemas, which no service's may replace.
    pub(crate) fn new(own: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self { known: own.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect() }
    }

    /// Enters a service's schema and gives a reference to it. `fallback` names one without a title.
    pub(crate) fn add(&mut self, schema: &Value, fallback: &str) -> Value {
        let name = schema.get("title").and_then(Value::as_str).unwrap_or(fallback);
        let moved = self.hoist(schema, fallback);
        let name = self.enter(name, fallback, moved);
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// The schema with its definitions moved to components and its references with them.
    pub(crate) fn hoist(&mut self, schema: &Value, owner: &str) -> Value {
        let mut schema = schema.clone();
        if let Some(members) = schema.as_object_mut() {
            // The document as a whole says which dialect it uses.
            members.remove("$schema");
        }
        let definitions = schema.as_object_mut().and_then(|members| members.remove("$defs"));
        let Some(Value::Object(definitions)) = definitions else { return schema };
        // Names first: definitions refer to each other, and to themselves.
        let mut names: Vec<(String, String)> = Vec::new();
        for (name, definition) in &definitions {
            let plain = component_name(name);
            let shared = self.known.get(&plain).is_none_or(|known| {
                let mut renamed = definition.clone();
                rename(&mut renamed, &|target| local(target).map(component_name));
                *known == renamed
            });
            let chosen = if shared { plain } else { component_name(&format!("{owner}.{name}")) };
            names.push((name.clone(), chosen));
        }
        let find = |target: &str| {
            let local = local(target)?;
            names.iter().find(|(name, _)| name == local).map(|(_, chosen)| chosen.clone())
        };
        for ((_, mut definition), (_, chosen)) in definitions.into_iter().zip(&names) {
            rename(&mut definition, &find);
            self.known.insert(chosen.clone(), definition);
        }
        rename(&mut schema, &find);
        schema
    }

    /// Enters a schema under `name`, or under a name of its owner's where another schema has that.
    fn enter(&mut self, name: &str, owner: &str, schema: Value) -> String {
        let plain = component_name(name);
        let name = match self.known.get(&plain) {
            Some(known) if *known != schema => component_name(owner),
            _ => plain,
        };
        self.known.insert(name.clone(), schema);
        name
    }

    pub(crate) fn finish(mut self) -> Map<String, Value> {
        self.known.sort_keys();
        self.known
    }
}

/// A declared input as one object: a model that refers to itself is declared as a reference into its own
/// definitions.
pub(crate) fn object_of(schema: &Value) -> Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
    let Some(Value::Object(found)) = target.and_then(|pointer| schema.pointer(pointer)) else {
        return schema.clone();
    };
    let mut object = found.clone();
    if let Some(definitions) = schema.get("$defs") {
        object.insert("$defs".to_owned(), definitions.clone());
    }
    Value::Object(object)
}

/// A name that may be a key under `components`: `^[a-zA-Z0-9._-]+$`.
pub(crate) fn component_name(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .collect()
}

/// A docstring's first line and the rest.
pub(crate) fn split_doc(doc: &str) -> (&str, &str) {
    let (first, rest) = doc.trim().split_once('\n').unwrap_or((doc.trim(), ""));
    (first.trim(), rest.trim())
}

/// Whether an object's schema demands the property.
pub(crate) fn is_required(schema: &Value, property: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|names| names.iter().any(|name| name.as_str() == Some(property)))
}

fn local(target: &str) -> Option<&str> {
    target.strip_prefix("#/$defs/")
}

fn rename(value: &mut Value, find: &dyn Fn(&str) -> Option<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get_mut("$ref")
                && let Some(name) = find(target)
            {
                *target = format!("#/components/schemas/{name}");
            }
            members.values_mut().for_each(|member| rename(member, find));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, find)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_definitions_are_shared_and_different_ones_kept_apart() {
        let mut schemas = Schemas::new([("Problem", json!({}))]);
        let schema = |city: &str| {
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/Address"}},
                "$defs": {"Address": {"type": "object", "properties": {"city": {"type": city}}}}})
        };
        let first = schemas.add(&schema("string"), "one.input");
        schemas.add(&schema("string"), "two.input");
        let third = schemas.add(&schema("integer"), "three.input");
        assert_eq!(first, json!({"$ref": "#/components/schemas/one.input"}));
        assert_eq!(third, json!({"$ref": "#/components/schemas/three.input"}));
        let known = schemas.finish();
        let names: Vec<_> = known.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["Address", "Problem", "one.input", "three.input", "three.input.Address", "two.input"]
        );
        assert_eq!(
            known["three.input"]["properties"]["a"]["$ref"],
            "#/components/schemas/three.input.Address"
        );
    }

    #[test]
    fn a_reference_to_itself_is_resolved_to_its_object() {
        let node = json!({"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}});
        let schema = json!({"$ref": "#/$defs/Node", "$defs": {"Node": node}});
        let object = object_of(&schema);
        assert_eq!(object["properties"], node["properties"]);
        assert_eq!(object["$defs"]["Node"], node);
        assert_eq!(object_of(&node), node);
    }

    #[test]
    fn a_definition_may_refer_to_itself() {
        let mut schemas = Schemas::new([("Problem", json!({}))]);
        let schema = json!({"title": "Tree", "$ref": "#/$defs/Node", "$defs": {"Node": {"type": "object",
            "properties": {"next": {"$ref": "#/$defs/Node"}}}}});
        schemas.add(&schema, "t");
        schemas.add(&schema, "u");
        let known = schemas.finish();
        assert_eq!(known["Node"]["properties"]["next"]["$ref"], "#/components/schemas/Node");
        assert_eq!(known.len(), 3);
    }
}
