//! Bodies transformed on their way through a channel, step by step.
//!
//! What a channel's definition says is made ready when its routes are built: stylesheets are compiled by then. A body
//! is whole before its first step. Stylesheets run on threads of their own; the rest is done here, or, for large
//! bodies, on a blocking thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crosstie_model::definition::{
    ChannelDefinition, DefinitionId, DefinitionKind, TransformStep, Transforms, XsltStep,
};
use crosstie_model::ports::ServiceDirectory;
use crosstie_model::transform::{
    FoundStylesheet, Parameter, TransformError, TransformTrouble, Transformation, Transformed,
};
use crosstie_model::{Cid, Failure, Fault, Origin, Snapshot};
use crosstie_xml::{Document, Limits, decode, is_ncname, untyped};
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde_json::Value;

use crate::aside::aside_if_large;
use crate::body::coding;
use crate::body::decode::too_deep;
use crate::body::media::{Media, charset};
use crate::response::Outgoing;
use crate::rest::Arrived;

const JSON: &str = "application/json";
const XML: &str = "application/xml; charset=utf-8";

/// What an answer may grow to when its content coding is taken off, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Header fields that describe a body as it was.
static DESCRIBING: [HeaderName; 9] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// What a channel makes of bodies.
#[derive(Default)]
pub(crate) struct Pipelines {
    pub(crate) request: Option<Pipeline>,
    pub(crate) response: Option<Pipeline>,
}

/// Steps in their order.
pub(crate) struct Pipeline {
    steps: Vec<Step>,
    /// How deep JSON and XML may nest.
    depth: usize,
}

enum Step {
    Xslt { name: Arc<str>, stylesheet: FoundStylesheet, parameters: Vec<(String, Parameter)> },
    XmlToJson { arrays: Arc<BTreeSet<String>> },
    JsonToXml { root: Arc<str> },
}

/// For whom a body is transformed.
#[derive(Clone, Copy)]
pub(crate) struct Errand {
    pub(crate) cid: Cid,
    /// Who sent the body.
    pub(crate) origin: Origin,
    pub(crate) deadline: Instant,
}

/// A body between two steps.
struct Body {
    bytes: Bytes,
    content_type: Option<HeaderValue>,
}

impl Pipelines {
    /// What `transforms` says, with stylesheets from `directory`.
    pub(crate) fn new(transforms: &Transforms, directory: &dyn ServiceDirectory, depth: usize) -> Self {
        let pipeline = |steps: &[TransformStep]| {
            let steps: Vec<_> = steps.iter().filter_map(|step| Step::new(step, directory)).collect();
            (!steps.is_empty()).then_some(Pipeline { steps, depth })
        };
        Self {
            request: pipeline(&transforms.request_transform),
            response: pipeline(&transforms.response_transform),
        }
    }

    /// Transforms a request that has arrived.
    ///
    /// # Errors
    /// Its body cannot be transformed.
    pub(crate) async fn take_in(&self, arrived: &mut Arrived, deadline: Instant) -> Result<(), Failure> {
        let Some(pipeline) = self.request.as_ref().filter(|_| !arrived.raw.is_empty()) else { return Ok(()) };
        let errand = Errand { cid: arrived.trace.cid, origin: Origin::Client, deadline };
        let (headers, raw) = (&mut arrived.http.headers, std::mem::take(&mut arrived.raw));
        arrived.raw = pipeline.transform(headers, raw, errand).await?;
        arrived.media = match arrived.raw.is_empty() {
            true => Media::Absent,
            false => Media::of(arrived.http.headers.get(CONTENT_TYPE)),
        };
        Ok(())
    }

    /// Transforms an answer.
    ///
    /// # Errors
    /// Its body cannot be had, or not be transformed.
    pub(crate) async fn give_out(
        &self,
        response: Response<Outgoing>,
        errand: Errand,
    ) -> Result<Response<Outgoing>, Failure> {
        let Some(pipeline) = self.response.as_ref().filter(|_| response.status().is_success()) else {
            return Ok(response);
        };
        let (mut head, body) = response.into_parts();
        let Some(coded) = body.whole().await? else {
            let cid = errand.cid;
            tracing::error!(%cid, "a service whose channel transforms answers replies with a whole body");
            return Err(Failure::service());
        };
        if coded.is_empty() {
            // It says how long the body of a GET would be.
            head.headers.remove(CONTENT_LENGTH);
            return Ok(Response::from_parts(head, Outgoing::empty()));
        }
        let plain = coding::decode(&head.headers, coded, MAX_ANSWER).await.map_err(|_| {
            let detail = "the answer's content coding is unknown, broken or hides too much";
            errand.failed("", &TransformError::new(TransformTrouble::Source, detail))
        })?;
        let body = pipeline.transform(&mut head.headers, plain, errand).await?;
        Ok(Response::from_parts(head, Outgoing::Whole(body)))
    }
}

impl Pipeline {
    /// Transforms a body without content coding, and makes `headers` describe the result.
    ///
    /// # Errors
    /// A step has no result.
    pub(crate) async fn transform(
        &self,
        headers: &mut HeaderMap,
        bytes: Bytes,
        errand: Errand,
    ) -> Result<Bytes, Failure> {
        let mut body = Body { bytes, content_type: headers.remove(CONTENT_TYPE) };
        for step in &self.steps {
            body = step.run(body, self.depth, errand).await?;
        }
        for name in &DESCRIBING {
            headers.remove(name);
        }
        if let Some(content_type) = body.content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        Ok(body.bytes)
    }
}

impl Errand {
    /// Tells the log why there is no result, and gives what the caller is told.
    fn failed(self, stylesheet: &str, error: &TransformError) -> Failure {
        let failure = error.failure(self.origin);
        let (cid, trouble, detail) = (self.cid, error.trouble.as_str(), error.detail.as_str());
        if failure.origin == Origin::Client {
            tracing::debug!(%cid, stylesheet, trouble, detail, "a body was not transformed");
        } else {
            tracing::warn!(%cid, stylesheet, trouble, detail, "a body was not transformed");
        }
        failure
    }
}

impl Step {
    fn new(step: &TransformStep, directory: &dyn ServiceDirectory) -> Option<Self> {
        if let Some(XsltStep { stylesheet, params }) = &step.xslt {
            let text = |(name, value): (&String, &String)| (name.clone(), Parameter::Text(value.clone()));
            let found = directory.stylesheet(stylesheet.as_str());
            return Some(Self::Xslt {
                name: stylesheet.to_shared(),
                stylesheet: found.unwrap_or_else(|| Err("it is not there".into())),
                parameters: params.iter().map(text).collect(),
            });
        }
        if let Some(step) = &step.xml_to_json {
            return Some(Self::XmlToJson { arrays: Arc::new(step.arrays.clone()) });
        }
        step.json_to_xml.as_ref().map(|step| Self::JsonToXml { root: step.root.as_str().into() })
    }

    async fn run(&self, body: Body, depth: usize, errand: Errand) -> Result<Body, Failure> {
        match self {
            Self::Xslt { name, stylesheet, parameters } => {
                let source = Transformation {
                    source: body.bytes,
                    charset: charset(body.content_type.as_ref()),
                    parameters: parameters.clone(),
                    depth,
                    deadline: errand.deadline,
                };
                let transformed = apply(stylesheet, source).await;
                let transformed = transformed.map_err(|error| errand.failed(name, &error))?;
                for message in &transformed.messages {
                    tracing::info!(cid = %errand.cid, stylesheet = %name, "{message}");
                }
                let content_type = HeaderValue::from_str(&transformed.content_type()).ok();
                Ok(Body { bytes: transformed.body, content_type })
            }
            Self::XmlToJson { arrays } => {
                let (arrays, charset) = (Arc::clone(arrays), charset(body.content_type.as_ref()));
                let map = move |xml: &[u8]| xml_to_json(xml, charset.as_deref(), &arrays, depth);
                mapped(body.bytes, JSON, errand, map).await
            }
            Self::JsonToXml { root } => {
                let root = Arc::clone(root);
                mapped(body.bytes, XML, errand, move |json: &[u8]| json_to_xml(json, &root, depth)).await
            }
        }
    }
}

/// Applies a stylesheet. It knows the deadline; whoever waits does so no longer, even where all threads are busy.
async fn apply(
    stylesheet: &FoundStylesheet,
    transformation: Transformation,
) -> Result<Transformed, TransformError> {
    let stylesheet =
        stylesheet.as_ref().map_err(|reason| TransformError::new(TransformTrouble::Closed, &**reason))?;
    let deadline = transformation.deadline.into();
    let work = stylesheet.transform(transformation);
    tokio::time::timeout_at(deadline, work)
        .await
        .unwrap_or_else(|_| Err(TransformError::new(TransformTrouble::Late, "the deadline passed")))
}

/// Runs a mapping where that holds nobody up.
async fn mapped(
    body: Bytes,
    content_type: &'static str,
    errand: Errand,
    map: impl FnOnce(&[u8]) -> Result<Vec<u8>, String> + Send + 'static,
) -> Result<Body, Failure> {
    let outcome = aside_if_large(body.len(), move || map(&body)).await?;
    let wrong = |detail| errand.failed("", &TransformError::new(TransformTrouble::Source, detail));
    let bytes = outcome.map_err(wrong)?.into();
    Ok(Body { bytes, content_type: Some(HeaderValue::from_static(content_type)) })
}

fn xml_to_json(
    body: &[u8],
    charset: Option<&str>,
    arrays: &BTreeSet<String>,
    depth: usize,
) -> Result<Vec<u8>, String> {
    let text = decode(body, charset).map_err(|error| error.to_string())?;
    let limits =
        Limits { bytes: usize::MAX, text_bytes: usize::MAX, nodes: usize::MAX, depth, ..Limits::default() };
    let document = Document::parse(&*text, &limits).map_err(|error| error.to_string())?;
    let mut value = untyped::to_json(document.root());
    untyped::make_arrays(&mut value, arrays);
    serde_json::to_vec(&value).map_err(|error| error.to_string())
}

fn json_to_xml(body: &[u8], root: &str, depth: usize) -> Result<Vec<u8>, String> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let value: Value =
        serde_json::from_slice(body).map_err(|error| format!("The body is not valid JSON: {error}"))?;
    match too_deep(&value, depth) {
        Some(detail) => Err(detail),
        None => Ok(untyped::document(root, &value).into_bytes()),
    }
}

/// What keeps a channel from opening that only a whole snapshot can tell.
pub(crate) fn faults(snapshot: &Snapshot, channel: &ChannelDefinition) -> Vec<Fault> {
    let Some(transforms) = channel.transforms() else { return Vec::new() };
    let mut faults = Vec::new();
    for (pointer, name) in transforms.stylesheets() {
        let id = DefinitionId { kind: DefinitionKind::Stylesheet, name: name.clone() };
        if !snapshot.definitions.contains_key(&id) {
            faults.push(Fault { pointer, detail: format!("there is no stylesheet {name}") });
        }
    }
    for (pointer, step) in transforms.steps() {
        let names = step.xslt.iter().flat_map(|step| step.params.keys());
        for name in names.filter(|name| !is_ncname(name)) {
            let member = name.replace('~', "~0").replace('/', "~1");
            let detail = format!("{name:?} is no name of a parameter");
            faults.push(Fault { pointer: format!("{pointer}/xslt/params/{member}"), detail });
        }
        let root = step.json_to_xml.iter().map(|step| &step.root);
        for root in root.filter(|root| !is_ncname(root)) {
            let detail = format!("{root:?} is no name of an element");
            faults.push(Fault { pointer: format!("{pointer}/json_to_xml/root"), detail });
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use crosstie_model::definition::DefinitionName;
    use crosstie_model::limits::MAX_DOCUMENT_DEPTH;
    use crosstie_model::ports::LoadedService;
    use crosstie_model::transform::{Stylesheet, Transformed};
    use crosstie_model::{Definition, DefinitionBody, TraceContext};
    use serde_json::json;
    use std::time::Duration;

    /// Puts what it is given into an element, with its parameters; waits for ever for `<wait/>`.
    #[derive(Debug)]
    struct Wraps;

    #[async_trait]
    impl Stylesheet for Wraps {
        async fn transform(&self, work: Transformation) -> Result<Transformed, TransformError> {
            let text = String::from_utf8(work.source.to_vec()).unwrap();
            if text.contains("<wait/>") {
                std::future::pending::<()>().await;
            }
            let text = text.split("?>\n").last().unwrap();
            let seen = format!("<w c='{:?}' p='{:?}'>", work.charset, work.parameters).replace('"', "");
            Ok(Transformed {
                body: format!("{seen}{text}</w>").into(),
                media_type: "text/xml".into(),
                encoding: "UTF-8".into(),
                messages: vec!["heard".into()],
            })
        }
    }

    struct Directory;

    impl ServiceDirectory for Directory {
        fn find(&self, _: &str) -> Option<Arc<dyn LoadedService>> {
            None
        }

        fn dictionary(&self, _: &str) -> Option<Arc<Value>> {
            None
        }

        fn stylesheet(&self, name: &str) -> Option<FoundStylesheet> {
            match name {
                "wraps" => Some(Ok(Arc::new(Wraps))),
                "broken" => Some(Err("line 3".into())),
                _ => None,
            }
        }
    }

    fn channel(steps: Value) -> ChannelDefinition {
        let body = json!({"type": "http", "path": "/a", "service": "s", "request_transform": steps});
        let id = DefinitionId { kind: DefinitionKind::Channel, name: DefinitionName::new("c").unwrap() };
        match Definition::from_value(id, body).unwrap().body {
            DefinitionBody::Channel(channel) => channel,
            other => panic!("{other:?}"),
        }
    }

    /// The result's body and type, or the status and text of the failure.
    fn run(steps: Value, content_type: &str, body: &str) -> Result<(String, String), (u16, String)> {
        let channel = channel(steps);
        let pipelines = Pipelines::new(channel.transforms().unwrap(), &Directory, MAX_DOCUMENT_DEPTH);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        headers.insert(ETAG, HeaderValue::from_static("\"1\""));
        let errand = Errand {
            cid: TraceContext::new_root().cid,
            origin: Origin::Client,
            deadline: Instant::now() + Duration::from_millis(300),
        };
        let body = Bytes::copy_from_slice(body.as_bytes());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let pipeline = pipelines.request.unwrap();
        match runtime.block_on(pipeline.transform(&mut headers, body, errand)) {
            Ok(body) => {
                assert!(!headers.contains_key(ETAG));
                let content_type = headers[CONTENT_TYPE].to_str().unwrap().to_owned();
                Ok((String::from_utf8(body.to_vec()).unwrap(), content_type))
            }
            Err(failure) => {
                let details: Vec<_> = failure.faults.iter().map(|fault| fault.detail.as_str()).collect();
                Err((failure.http_status(), format!("{} {}", failure.text, details.join(" "))))
            }
        }
    }

    #[test]
    fn steps_are_taken_in_their_order() {
        let steps = json!([
            {"json_to_xml": {"root": "a"}},
            {"xslt": {"stylesheet": "wraps", "params": {"n": "1"}}},
            {"xml_to_json": {"arrays": ["b"]}}
        ]);
        let (body, content_type) = run(steps, "application/json", "{\"b\": 1, \"@c\": true}").unwrap();
        assert_eq!(content_type, "application/json");
        let expected = json!({"@c": "Some(utf-8)", "@p": "[(n, Text(1))]", "a": {"@c": "true", "b": ["1"]}});
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
        let (_, content_type) =
            run(json!([{"xslt": {"stylesheet": "wraps"}}]), "text/plain", "<a/>").unwrap();
        assert_eq!(content_type, "text/xml; charset=utf-8");
        let latin = json!([{"xslt": {"stylesheet": "wraps"}}]);
        let (body, _) = run(latin, "text/xml; charset=ISO-8859-1", "<a/>").unwrap();
        assert!(body.to_lowercase().contains("some(iso-8859-1)"), "{body}");
    }

    #[test]
    fn a_step_that_fails_ends_the_request() {
        let of = |steps, body: &str| run(steps, "text/xml", body).unwrap_err();
        let (status, text) = of(json!([{"xml_to_json": {}}]), "<a>\n<b></a>");
        assert!(status == 400 && text.contains("line 2"), "{text}");
        let deep = "<a>".repeat(1_000) + &"</a>".repeat(1_000);
        assert_eq!(of(json!([{"xml_to_json": {}}]), &deep).0, 400);
        let deep = "[".repeat(1_000);
        assert_eq!(of(json!([{"json_to_xml": {"root": "a"}}]), &deep).0, 400);
        for name in ["broken", "gone"] {
            let (status, text) = of(json!([{"xslt": {"stylesheet": name}}]), "<a/>");
            assert!(status == 503 && !text.contains("line 3"), "{text}");
        }
        assert_eq!(of(json!([{"xslt": {"stylesheet": "wraps"}}]), "<wait/>").0, 504);
    }

    /// The answer that becomes of one with this status, coding and body.
    fn answered(status: u16, coding: Option<&str>, body: Outgoing) -> Result<(HeaderMap, Bytes), u16> {
        let id = DefinitionId { kind: DefinitionKind::Channel, name: DefinitionName::new("c").unwrap() };
        let steps = json!([{"xslt": {"stylesheet": "wraps"}}]);
        let body_of = json!({"type": "http", "path": "/a", "service": "s", "response_transform": steps});
        let DefinitionBody::Channel(channel) = Definition::from_value(id, body_of).unwrap().body else {
            panic!()
        };
        let pipelines = Pipelines::new(channel.transforms().unwrap(), &Directory, MAX_DOCUMENT_DEPTH);
        let mut response = Response::new(body);
        *response.status_mut() = status.try_into().unwrap();
        for (name, value) in [(CONTENT_TYPE, Some("text/xml")), (CONTENT_ENCODING, coding), (ETAG, Some("1"))]
        {
            value.map(|value| response.headers_mut().insert(name, value.parse().unwrap()));
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let errand = Errand { cid: TraceContext::new_root().cid, origin: Origin::Upstream, deadline };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let given = pipelines.give_out(response, errand).await;
            let (head, body) = given.map_err(|failure| failure.http_status())?.into_parts();
            Ok((head.headers, body.whole().await.unwrap().unwrap()))
        })
    }

    #[test]
    fn answers_are_transformed_whole_and_without_their_coding() {
        let coded = || {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, b"<a/>").unwrap();
            Bytes::from(encoder.finish().unwrap())
        };
        let (headers, body) = answered(201, Some("gzip"), Outgoing::Whole(coded())).unwrap();
        assert_eq!(body, "<w c='None' p='[]'><a/></w>");
        assert!(!headers.contains_key(CONTENT_ENCODING) && !headers.contains_key(ETAG), "{headers:?}");
        // What is no success, and what is nothing, stays as it is.
        let (headers, body) = answered(404, Some("gzip"), Outgoing::Whole(coded())).unwrap();
        assert!(body == coded() && headers.contains_key(CONTENT_ENCODING) && headers.contains_key(ETAG));
        assert_eq!(answered(200, None, Outgoing::empty()).unwrap().1, "");
        let broken = Bytes::from_static(b"no gzip");
        assert_eq!(answered(200, Some("gzip"), Outgoing::Whole(broken.clone())).unwrap_err(), 502);
        assert_eq!(answered(200, Some("zip"), Outgoing::Whole(broken)).unwrap_err(), 502);
        let stream = futures_util::stream::empty();
        assert_eq!(answered(200, None, Outgoing::Stream(Box::pin(stream))).unwrap_err(), 500);
    }

    #[test]
    fn what_a_step_cannot_be_is_told_with_its_place() {
        let channel = channel(json!([
            {"xslt": {"stylesheet": "gone", "params": {"a/b": "1", "c": "2"}}},
            {"json_to_xml": {"root": "two words"}}
        ]));
        let told: Vec<_> =
            faults(&Snapshot::default(), &channel).into_iter().map(|fault| fault.pointer).collect();
        assert_eq!(
            told,
            [
                "/request_transform/0/xslt/stylesheet",
                "/request_transform/0/xslt/params/a~1b",
                "/request_transform/1/json_to_xml/root"
            ]
        );
    }
}
