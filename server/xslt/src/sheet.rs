//! Stylesheets that are in use: compiled once, for as long as anybody has them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::definition::StylesheetDefinition;
use crosstie_model::transform::{
    Parameter, Stylesheet, TransformError, TransformTrouble, Transformation, Transformed,
};
use crosstie_model::{Digest, Fault};
use crosstie_xml::{Document, Limits as XmlLimits, XmlError, decode, is_ncname};

use crate::check::check;
use crate::libxslt::{Compiled, Ended, Given, Limits, Method, Outcome};
use crate::report;
use crate::threads;

/// Memory of a transformation: this much, and so many times the size of its source and of its largest result.
const MEMORY_BASE: usize = 64 * 1024 * 1024;
/// See [`MEMORY_BASE`]: a tree takes up to 30 times what its text does.
const MEMORY_PER_SOURCE: usize = 32;
/// See [`MEMORY_BASE`].
const MEMORY_PER_OUTPUT: usize = 4;

/// How often a stylesheet is compiled to learn what is wrong with it: what services do with libxslt may swallow that.
const ATTEMPTS: usize = 5;

/// What is compiled now, by the digest of its texts. Definitions that say the same share it, and so do snapshots.
static KNOWN: LazyLock<Mutex<HashMap<Digest, Weak<Compiled>>>> = LazyLock::new(Mutex::default);

/// A stylesheet as its definition says.
#[derive(Debug, Clone)]
pub struct Sheet {
    compiled: Arc<Compiled>,
    timeout: Duration,
    depth: u32,
    output: usize,
}

/// What keeps a stylesheet from being used.
#[must_use]
pub fn faults(definition: &StylesheetDefinition) -> Vec<Fault> {
    Sheet::open(definition).err().unwrap_or_default()
}

impl Sheet {
    /// Compiles a stylesheet, unless it is in use already. Takes milliseconds at most; blocks for as long.
    ///
    /// # Errors
    /// Everything that is wrong with it, with lines.
    pub fn open(definition: &StylesheetDefinition) -> Result<Self, Vec<Fault>> {
        let compiled = compiled(definition).map_err(|details| {
            let fault = |detail| Fault { pointer: "/text".to_owned(), detail };
            details.into_iter().map(fault).collect::<Vec<_>>()
        })?;
        Ok(Self {
            compiled,
            timeout: Duration::from_millis(definition.timeout_ms),
            depth: definition.max_depth,
            output: usize::try_from(definition.max_output_bytes).unwrap_or(usize::MAX),
        })
    }
}

fn compiled(definition: &StylesheetDefinition) -> Result<Arc<Compiled>, Vec<String>> {
    let digest = digest_of(definition);
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).and_then(Weak::upgrade);
    if let Some(known) = known {
        return Ok(known);
    }
    check(definition)?;
    // A name with a zero byte is no location, and so nobody's.
    let beside = definition.documents.iter();
    let beside = beside.filter_map(|(name, text)| Some((CString::new(name.as_str()).ok()?, text.clone())));
    let (text, documents) = (definition.text.clone(), beside.collect::<Vec<_>>());
    let compiled = threads::run_apart(move || compile(&text, &documents))
        .ok_or_else(|| vec!["it could not be compiled: no thread can be started".to_owned()])??;
    let compiled = Arc::new(compiled);
    let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, known| known.strong_count() > 0);
    all.insert(digest, Arc::downgrade(&compiled));
    Ok(compiled)
}

/// The digest of all texts, told apart by their lengths.
fn digest_of(definition: &StylesheetDefinition) -> Digest {
    let beside = definition.documents.iter().flat_map(|(name, text)| [name, text]);
    let mut all = Vec::with_capacity(definition.text.len() + 8);
    for text in std::iter::once(&definition.text).chain(beside) {
        all.extend_from_slice(&text.len().to_le_bytes());
        all.extend_from_slice(text.as_bytes());
    }
    Digest::of(&all)
}

fn compile(text: &str, documents: &[(CString, String)]) -> Result<Compiled, Vec<String>> {
    for _ in 0..ATTEMPTS {
        match Compiled::new(text, documents) {
            Ok(compiled) => return Ok(compiled),
            Err(pieces) if pieces.is_empty() => {}
            Err(pieces) => return Err(report::errors(&pieces)),
        }
    }
    Err(vec!["it does not compile".to_owned()])
}

#[async_trait]
impl Stylesheet for Sheet {
    async fn transform(&self, transformation: Transformation) -> Result<Transformed, TransformError> {
        let given = transformation.parameters.iter().map(given).collect::<Result<Vec<_>, _>>()?;
        let sheet = self.clone();
        let done = threads::run(move || sheet.run(&transformation, &given)).await;
        done.unwrap_or_else(|| {
            Err(TransformError::new(TransformTrouble::Closed, "no thread can be started to transform"))
        })
    }
}

impl Sheet {
    fn run(&self, transformation: &Transformation, given: &[Given]) -> Result<Transformed, TransformError> {
        let left = transformation.deadline.saturating_duration_since(Instant::now()).min(self.timeout);
        let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        if milliseconds == 0 {
            return Err(TransformError::new(TransformTrouble::Late, "the deadline passed before it began"));
        }
        let source = readable(transformation)?;
        let memory = MEMORY_BASE
            .saturating_add(source.len().saturating_mul(MEMORY_PER_SOURCE))
            .saturating_add(self.output.saturating_mul(MEMORY_PER_OUTPUT));
        let limits = Limits { milliseconds, memory, output: self.output, depth: self.depth };
        self.conclude(self.compiled.transform(&source, given, limits), limits)
    }

    fn conclude(&self, outcome: Outcome, limits: Limits) -> Result<Transformed, TransformError> {
        let told = |fallback: &str| {
            let errors = report::errors(&outcome.pieces);
            if errors.is_empty() { fallback.to_owned() } else { errors.join("; ") }
        };
        let (trouble, detail) = match outcome.ended {
            Ended::Done => {
                let media_type = match outcome.method {
                    _ if !outcome.media_type.is_empty() => outcome.media_type,
                    Method::Xml => "application/xml".to_owned(),
                    Method::Html => "text/html".to_owned(),
                    Method::Text => "text/plain".to_owned(),
                };
                let messages = report::messages(&outcome.pieces);
                let encoding = outcome.encoding;
                return Ok(Transformed { body: Bytes::from(outcome.output), media_type, encoding, messages });
            }
            Ended::Terminated => {
                let last = report::messages(&outcome.pieces).pop();
                (TransformTrouble::Terminated, last.unwrap_or_default())
            }
            Ended::Time => {
                let took = format!("it took longer than {} ms", limits.milliseconds);
                (TransformTrouble::Late, took)
            }
            Ended::Memory => {
                (TransformTrouble::TooLarge, format!("it takes more than {} bytes of memory", limits.memory))
            }
            Ended::Output => {
                (TransformTrouble::TooLarge, format!("the result has more than {} bytes", self.output))
            }
            Ended::Depth => {
                let detail = format!("templates and conditions nest deeper than {}", limits.depth);
                (TransformTrouble::TooDeep, detail)
            }
            Ended::Forbidden => (TransformTrouble::Forbidden, report::refusal(&outcome.pieces)),
            Ended::Source => (TransformTrouble::Source, told("the document cannot be read")),
            Ended::Failed => (TransformTrouble::Failed, told("it failed")),
        };
        Err(TransformError { trouble, detail })
    }
}

/// The document as text, once it is known to be harmless.
fn readable(transformation: &Transformation) -> Result<Cow<'_, str>, TransformError> {
    let wrong = |error: XmlError| TransformError::new(TransformTrouble::Source, error.to_string());
    let text = decode(&transformation.source, transformation.charset.as_deref()).map_err(wrong)?;
    let limits = XmlLimits {
        bytes: usize::MAX,
        text_bytes: usize::MAX,
        depth: transformation.depth,
        ..XmlLimits::default()
    };
    Document::parse(&*text, &limits).map_err(wrong)?;
    Ok(text)
}

fn given((name, value): &(String, Parameter)) -> Result<Given, TransformError> {
    let misuse = |detail: String| TransformError::new(TransformTrouble::Misuse, detail);
    if !is_ncname(name) {
        return Err(misuse(format!("{name:?} is no name of a parameter")));
    }
    let (value, is_expression) = match value {
        Parameter::Text(text) => (text.clone(), false),
        Parameter::Number(number) if number.is_finite() => (format!("{number}"), true),
        Parameter::Number(_) => return Err(misuse(format!("the parameter {name} is no finite number"))),
        Parameter::Truth(true) => ("true()".to_owned(), true),
        Parameter::Truth(false) => ("false()".to_owned(), true),
    };
    let zero = |_| misuse(format!("the parameter {name} holds a zero byte"));
    let value = CString::new(value).map_err(zero)?;
    Ok(Given { name: CString::new(name.as_str()).map_err(zero)?, value, is_expression })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stylesheet_is_compiled_once_for_as_long_as_it_is_in_use() {
        let text = "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'><!--once-->\
                    </xsl:stylesheet>";
        let definition = |timeout_ms: u64, beside: &str| -> StylesheetDefinition {
            let body = json!({"text": text, "timeout_ms": timeout_ms, "documents": {"a.xsl": beside}});
            serde_json::from_value(body).unwrap()
        };
        let (first, second) = (definition(1, text), definition(2, text));
        let digest = digest_of(&first);
        let (first, second) = (Sheet::open(&first).unwrap(), Sheet::open(&second).unwrap());
        assert!(Arc::ptr_eq(&first.compiled, &second.compiled));
        assert_ne!(first.timeout, second.timeout);
        let other = Sheet::open(&definition(1, &text.replace("once", "twice"))).unwrap();
        assert!(!Arc::ptr_eq(&first.compiled, &other.compiled));
        let is_known = || KNOWN.lock().unwrap().get(&digest).and_then(Weak::upgrade).is_some();
        assert!(is_known());
        drop((first, second));
        assert!(!is_known());
    }
}
