//! Names of definitions. Wider than other names: a channel declared in code is called `SERVICE:KIND:PATH`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{MAX_NAME_BYTES, NameError};

/// The name of a definition: printable ASCII without white space, quotes or backslash; at most
/// [`MAX_NAME_BYTES`] bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DefinitionName(Arc<str>);

impl DefinitionName {
    /// Checks `text` and makes a name of it.
    ///
    /// # Errors
    /// [`NameError`] says which rule the text breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(text.len()));
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '\'' | '\\')) {
            return Err(NameError::BadCharacter(bad));
        }
        if text.starts_with(['.', '-', '/']) {
            return Err(NameError::BadEdge);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text.
    #[must_use]
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl TryFrom<String> for DefinitionName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl FromStr for DefinitionName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<DefinitionName> for String {
    fn from(name: DefinitionName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for DefinitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DefinitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl JsonSchema for DefinitionName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DefinitionName".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES,
            "pattern": r#"^[!#$%&()*+,:;<=>?@A-Z\[\]^_`a-z{|}~0-9][!#-&(-\[\]-~]*$"#
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_declared_in_code_has_a_name() {
        assert!(DefinitionName::new("demo.hello:rest:/hello/{name}").is_ok());
        assert!(DefinitionName::new("two words").is_err());
        assert!(DefinitionName::new("../up").is_err());
        assert!(DefinitionName::new("quo\"te").is_err());
    }
}
