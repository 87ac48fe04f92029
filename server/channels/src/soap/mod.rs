//! SOAP channels: SOAP 1.1 and 1.2 over HTTP, several operations at one path.
//!
//! A request is POST with an envelope, alone or with attachments. It is taken apart and checked against the
//! description by [`request`], once; what it says goes to the operation's service as JSON, and the service's JSON
//! comes back as the answer's body by [`reply`]. Whatever goes wrong from then on is a fault of the envelope's own
//! version: 500 for SOAP 1.1 (WS-I Basic Profile 1.1, R1126), 400 or 500 for SOAP 1.2 (part 2, section 7.5.2.2).
//! What is refused before an envelope was read keeps the status that HTTP has for it, with a fault as its body.
//!
//! GET with `?wsdl` gives the description ([`page`]).

mod description;
mod fault;
mod page;
mod reply;
mod request;
mod token;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crosstie_model::definition::{Mtom, SoapChannel, SoapVersion};
use crosstie_model::message::{Message, Payload};
use crosstie_model::{Failure, FailureKind, Origin, Snapshot};
use crosstie_xml::soap::{MultipartLimits, Version};
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};

use crate::aside::aside_if_large;
use crate::response::Outgoing;
use crate::rest::Arrived;
use crate::target::Target;
pub(crate) use description::{Compiled, compile};
pub use description::{DescriptionFault, faults, wsdl_faults};
use fault::{Refused, Spoken};
pub(crate) use fault::{render_failure, version_of};
pub(crate) use page::{base, page};
use request::Read;

/// What a SOAP channel leads to.
pub(crate) struct Soap {
    compiled: Arc<Compiled>,
    /// By the operation's name in the description. Nothing outside can be called.
    operations: HashMap<String, Target>,
    versions: BTreeSet<SoapVersion>,
    mtom: Mtom,
    mtom_from: usize,
    max_parts: usize,
    /// Header blocks that the services understand.
    understands: Vec<(String, String)>,
    /// Whether the security header is read.
    reads_security: bool,
    describes: bool,
    has_one_way: bool,
}

impl Soap {
    /// Compiles the channel; `target` makes the way to each operation's service.
    ///
    /// # Errors
    /// Everything that is wrong with its description.
    pub(crate) fn new(
        snapshot: &Snapshot,
        channel: &SoapChannel,
        reads_security: bool,
        target: impl Fn(&crosstie_model::ServiceName) -> Target,
    ) -> Result<Self, Vec<DescriptionFault>> {
        let compiled = compile(snapshot, channel)?;
        let operations = channel.operations.iter();
        let operations: HashMap<_, _> =
            operations.map(|(name, service)| (compiled.operation_name(name), target(service))).collect();
        let split = |name: &String| {
            let (namespace, local) = name.strip_prefix('{')?.split_once('}')?;
            Some((namespace.to_owned(), local.to_owned()))
        };
        let has_one_way = operations.keys().any(|name| is_one_way(&compiled, name));
        Ok(Self {
            compiled,
            operations,
            versions: channel.versions.clone(),
            mtom: channel.mtom,
            mtom_from: usize::try_from(channel.mtom_from_bytes).unwrap_or(usize::MAX),
            max_parts: usize::try_from(channel.max_parts).unwrap_or(usize::MAX),
            understands: channel.understands.iter().filter_map(split).collect(),
            reads_security,
            describes: channel.describe,
            has_one_way,
        })
    }

    /// Whether the description is given out.
    pub(crate) fn describes(&self) -> bool {
        self.describes
    }

    /// Whether some of its operations give no answer.
    pub(crate) fn has_one_way_operations(&self) -> bool {
        self.has_one_way
    }

    fn speaks(&self, version: Version) -> bool {
        self.versions.contains(&model_version(version))
    }

    fn limits(&self) -> MultipartLimits {
        MultipartLimits { parts: self.max_parts, ..MultipartLimits::default() }
    }
}

/// Whether an operation gives no answer. The versions do not differ in that.
fn is_one_way(compiled: &Compiled, operation: &str) -> bool {
    let found = |version| compiled.operation(version, operation);
    let described = found(Version::V11).or_else(|| found(Version::V12));
    described.is_some_and(|operation| operation.output.is_none())
}

fn model_version(version: Version) -> SoapVersion {
    match version {
        Version::V11 => SoapVersion::V11,
        Version::V12 => SoapVersion::V12,
    }
}

/// A request that was read, whether or not it may be answered.
pub(crate) struct Heard(Result<Box<Read>, Refused>);

impl Heard {
    /// What it holds of a username token; of a message that could not be read, nothing.
    pub(crate) fn token(&self) -> &token::Token {
        static NONE: token::Token = token::Token::NONE;
        self.0.as_ref().map_or(&NONE, |read| &read.token)
    }

    /// The fault for credentials that were refused.
    pub(crate) fn refuse(
        &self,
        failure: &Failure,
        reason: Option<crosstie_model::refusal::RefusalReason>,
        channel: &Soap,
        cid: crosstie_model::cid::Cid,
    ) -> Response<Outgoing> {
        let spoken = match &self.0 {
            Ok(read) => read.spoken.clone(),
            Err(refused) => refused.spoken.clone(),
        };
        fault::unauthorized(&spoken, failure, reason, channel, cid)
    }

    /// Whether there is a message at all.
    pub(crate) fn is_readable(&self) -> bool {
        self.0.is_ok()
    }
}

/// Reads a request.
///
/// # Errors
/// 500 when the thread that reads large ones panicked.
pub(crate) async fn hear(channel: &Arc<Soap>, depth: usize, arrived: &Arrived) -> Result<Heard, Failure> {
    let field = |name: &str| arrived.http.headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = field(CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
    let action = field("soapaction").map(str::to_owned);
    let raw = arrived.raw.clone();
    let channel = Arc::clone(channel);
    let read = move || Heard(request::read(&channel, &content_type, action.as_deref(), &raw, depth));
    aside_if_large(arrived.raw.len(), read).await
}

/// What became of a request.
pub(crate) struct Answer<'c> {
    pub(crate) response: Response<Outgoing>,
    /// What went wrong, for the report.
    pub(crate) failure: Option<Failure>,
    /// The operation's service, which the request is reported under.
    pub(crate) target: Option<&'c Target>,
}

/// Answers a request.
pub(crate) async fn answer(channel: &Arc<Soap>, heard: Heard, arrived: Arrived) -> Answer<'_> {
    let cid = arrived.trace.cid;
    let (read, refused) = match heard.0 {
        Ok(read) => (Some(read), None),
        Err(refused) => (None, Some(refused)),
    };
    let Some(read) = read else {
        let refused = refused.unwrap_or_else(|| Refused::of(Spoken::default(), Failure::service()));
        return refused.answer(channel, cid, None);
    };
    let Read { spoken, asked, .. } = *read;
    let asked = match asked {
        Ok(asked) => asked,
        Err(fault) => return fault.answer(channel, cid, None),
    };
    let Some(target) = channel.operations.get(&asked.soap.operation) else {
        let text = format!("The operation {} is not offered here", asked.soap.operation);
        let failure = Failure::new(FailureKind::NotFound, Origin::Client).with_text(text);
        return Refused::of(spoken, failure).answer(channel, cid, None);
    };
    let operation = asked.soap.operation.clone();
    if is_one_way(&channel.compiled, &operation) {
        let failure = invoke(target, asked, arrived).await.err();
        if let Some(error) = &failure {
            // Nobody waits for an answer: what went wrong is in the log.
            tracing::warn!(%cid, operation, %error, "a one-way operation failed");
        }
        return Answer { response: accepted(), failure, target: Some(target) };
    }
    match invoke(target, asked, arrived).await {
        Err(failure) => Refused::of(spoken, failure).answer(channel, cid, Some(target)),
        Ok(_) if spoken.wants_no_answer() => {
            Answer { response: accepted(), failure: None, target: Some(target) }
        }
        Ok(reply) => match reply::write(channel, &spoken, &operation, reply, cid).await {
            Ok(response) => Answer { response, failure: None, target: Some(target) },
            Err(failure) => Refused::of(spoken, failure).answer(channel, cid, Some(target)),
        },
    }
}

async fn invoke(
    target: &Target,
    asked: request::Asked,
    arrived: Arrived,
) -> Result<crosstie_model::Reply, Failure> {
    let _permit = target.admit()?;
    target
        .call(Message {
            trace: arrived.trace,
            channel: Arc::clone(&target.info),
            payload: Payload::Json(asked.value),
            raw: arrived.raw,
            http: Some(arrived.http),
            soap: Some(Box::new(asked.soap)),
            amqp: None,
            principal: arrived.principal,
            deadline: target.deadline_from_now(),
            depth: 0,
        })
        .await
}

/// 202 without an envelope (WS-I Basic Profile 1.1, section 3.4.4).
fn accepted() -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}
