//! Descriptions of SOAP services that somebody else wrote.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A WSDL 1.1 description with the documents it imports. Channels offer what it describes, outgoings call it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WsdlDefinition {
    /// The WSDL document.
    #[schemars(length(min = 1, max = 16_777_216))]
    pub text: String,
    /// The documents that it imports or includes, and those that these do, by location: as the import says it,
    /// relative to the WSDL. Nothing is ever fetched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub documents: BTreeMap<String, String>,
}

impl WsdlDefinition {
    /// Where the WSDL itself is said to be, when it is read.
    pub const LOCATION: &str = "service.wsdl";

    /// The document at `location`: the WSDL at [`WsdlDefinition::LOCATION`], the others where they are listed.
    ///
    /// # Errors
    /// There is none, told for a person.
    pub fn document(&self, location: &str) -> Result<&str, String> {
        if location == Self::LOCATION {
            return Ok(&self.text);
        }
        let place = location.strip_prefix("./").unwrap_or(location);
        let found = self.documents.get(location).or_else(|| self.documents.get(place));
        found.map(String::as_str).ok_or_else(|| format!("the definition has no document {location:?}"))
    }
}
