//! A loaded service: its class with everything compiled, and the way a message takes to it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use crosstie_model::ports::LoadedService;
use crosstie_model::schema::Schema;
use crosstie_model::unit::ServiceDescription;
use crosstie_model::{Failure, Message, Payload, Reply};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};
use serde_json::Value;

use super::codec::Codec;
use super::context::{Call, Host, InputData};
use super::event_loop::Purpose;
use super::handler;
use super::input::InputRules;
use super::pool::{self, Job, Work};
use super::resources::Resources;
use super::ticket::{Answer, Outcome, Ticket};
use super::unit::Unit;

/// Bodies larger than this are checked without the interpreter, and never on the reactor.
const LARGE_BODY: usize = 16 * 1024;

/// Which handler takes which method.
#[derive(Debug)]
pub(crate) enum Handlers {
    /// `handle`
    One(Py<PyString>),
    /// `handle_GET` … by method.
    ByMethod(Vec<(String, Py<PyString>)>),
}

/// Which hooks a service overrides; the others are not called.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hooks {
    pub(crate) accept: bool,
    pub(crate) before: bool,
    pub(crate) after: bool,
    /// The handler is an asynchronous generator.
    pub(crate) streams: bool,
}

/// A declared input.
#[derive(Debug)]
pub(crate) struct DeclaredInput {
    pub(crate) rules: InputRules,
    pub(crate) codec: Codec,
}

/// A declared output.
#[derive(Debug)]
pub(crate) struct DeclaredOutput {
    pub(crate) codec: Codec,
    /// Only where it says more than the types do: lengths, ranges, patterns.
    pub(crate) schema: Option<Schema>,
}

/// What is needed to run a service.
#[derive(Debug)]
pub(crate) struct ServiceCode {
    pub(crate) description: ServiceDescription,
    pub(crate) class: Py<PyType>,
    pub(crate) handlers: Handlers,
    pub(crate) hooks: Hooks,
    pub(crate) input: Option<DeclaredInput>,
    pub(crate) output: Option<DeclaredOutput>,
}

impl ServiceCode {
    /// Compiles what `describe.loaded_service` says about a class.
    ///
    /// # Errors
    /// The class is not what its description was made of.
    pub(crate) fn compile(description: &ServiceDescription, loaded: &Bound<'_, PyDict>) -> PyResult<Self> {
        let py = loaded.py();
        let get = |name: &str| {
            loaded.get_item(name)?.ok_or_else(|| PyValueError::new_err(format!("{name} is missing")))
        };
        let flag = |name: &str| get(name)?.is_truthy();
        let names: Vec<String> = get("handlers")?.extract()?;
        let handlers = if names.iter().any(|name| name == "handle") {
            Handlers::One(PyString::intern(py, "handle").unbind())
        } else {
            let by_method = names.iter().filter_map(|name| {
                let method = name.strip_prefix("handle_")?;
                Some((method.to_owned(), PyString::intern(py, name).unbind()))
            });
            Handlers::ByMethod(by_method.collect())
        };
        let schema_error =
            |error: crosstie_model::schema::SchemaError| PyValueError::new_err(error.to_string());
        let input = match &description.input {
            Some(schema) => Some(DeclaredInput {
                rules: InputRules::compile(schema).map_err(schema_error)?,
                codec: Codec::compile(&get("input")?)?,
            }),
            None => None,
        };
        let output = match &description.output {
            Some(schema) => Some(DeclaredOutput {
                codec: Codec::compile(&get("output")?)?,
                schema: constraints_of(schema).map(Schema::compile).transpose().map_err(schema_error)?,
            }),
            None => None,
        };
        Ok(Self {
            description: description.clone(),
            class: get("class")?.cast_into::<PyType>()?.unbind(),
            handlers,
            hooks: Hooks {
                accept: flag("accept")?,
                before: flag("before")?,
                after: flag("after")?,
                streams: flag("streams")?,
            },
            input,
            output,
        })
    }
}

/// The schema to check an output with, if it says more than its types do. Formats are left out: the codec
/// writes them, and a date without a zone is the service's own business.
fn constraints_of(schema: &Value) -> Option<Value> {
    const WORDS: [&str; 7] =
        ["minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems"];
    fn is_constrained(value: &Value) -> bool {
        match value {
            Value::Object(members) => members.iter().any(|(name, value)| {
                (WORDS.contains(&name.as_str()) && !value.is_object()) || is_constrained(value)
            }),
            Value::Array(items) => items.iter().any(is_constrained),
            _ => false,
        }
    }
    fn without_formats(value: &Value) -> Value {
        match value {
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .filter(|(name, value)| *name != "format" || !value.is_string())
                    .map(|(name, value)| (name.clone(), without_formats(value)))
                    .collect(),
            ),
            Value::Array(items) => items.iter().map(without_formats).collect(),
            other => other.clone(),
        }
    }
    is_constrained(schema).then(|| without_formats(schema))
}

/// A service that can be called.
pub(crate) struct PythonService {
    inner: Arc<Inner>,
}

struct Inner {
    code: Arc<ServiceCode>,
    host: Arc<Host>,
    /// Dropped last: then the code is unloaded.
    unit: Arc<Unit>,
}

impl fmt::Debug for PythonService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}", self.inner.code.description.name)
    }
}

impl PythonService {
    pub(crate) fn new(code: ServiceCode, host: Arc<Host>, unit: Arc<Unit>) -> Self {
        Self { inner: Arc::new(Inner { code: Arc::new(code), host, unit }) }
    }

    async fn invoke_async(&self, message: Message) -> Result<Reply, Failure> {
        let inner = &self.inner;
        let (message, input) = if inner.code.input.is_some() && message.raw.len() > LARGE_BODY {
            inner.checked_elsewhere(message).await?
        } else {
            let input = inner.input_of(&message)?;
            (message, input)
        };
        let ticket = Ticket::new(message.deadline);
        let waiting = ticket.wait();
        let resources = Arc::new(Resources::default());
        let call = Call::new(
            Arc::clone(&inner.host),
            Arc::clone(&inner.code),
            message,
            input,
            Arc::clone(&resources),
        );
        inner.host.events.submit(call, Arc::clone(&inner.unit), Purpose::Handle, ticket)?;
        reply_of(waiting.await, &resources)
    }
}

#[async_trait]
impl LoadedService for PythonService {
    fn description(&self) -> &ServiceDescription {
        &self.inner.code.description
    }

    async fn invoke(&self, message: Message) -> Result<Reply, Failure> {
        let inner = &self.inner;
        if inner.code.description.is_async {
            return self.invoke_async(message).await;
        }
        if pool::is_handler() {
            // A service calls this one from its own handler thread: waiting for another thread could wait
            // for ever, and costs two switches if it does not.
            let input = inner.input_of(&message)?;
            return Python::attach(|py| inner.run(py, message, input, Arc::default()));
        }
        let ticket = Ticket::new(message.deadline);
        let waiting = ticket.wait();
        let is_nested = message.depth > 0;
        let work = Box::new(Invocation::new(Arc::clone(inner), message));
        let resources = Arc::clone(&work.resources);
        let service = inner.code.description.name.clone();
        let submitted = inner.host.pool.submit(Job { ticket, service, is_nested, work })?;
        inner.host.flush_later(submitted).await;
        reply_of(waiting.await, &resources)
    }
}

/// The reply, or why there is none: then the call may still be under way on its thread, late, and must not go on
/// holding what others need.
fn reply_of(answer: Answer, resources: &Resources) -> Result<Reply, Failure> {
    match answer {
        Ok(Outcome::Reply(reply)) => Ok(reply),
        other => {
            resources.close();
            Err(other.err().unwrap_or_else(Failure::service))
        }
    }
}

impl Inner {
    fn input_of(&self, message: &Message) -> Result<InputData, Failure> {
        match &self.code.input {
            Some(declared) => declared.rules.apply(message),
            None => Ok(InputData::Undeclared),
        }
    }

    fn run(
        &self,
        py: Python<'_>,
        message: Message,
        input: InputData,
        resources: Arc<Resources>,
    ) -> Result<Reply, Failure> {
        let call = Call::new(Arc::clone(&self.host), Arc::clone(&self.code), message, input, resources);
        let reply = handler::run(py, &call, &self.unit);
        call.ended(&reply);
        reply
    }

    /// Checks a large input on a handler thread instead of the reactor.
    async fn checked_elsewhere(self: &Arc<Self>, message: Message) -> Result<(Message, InputData), Failure> {
        let checked = Arc::new(Mutex::new(None));
        let ticket = Ticket::new(message.deadline);
        let waiting = ticket.wait();
        let is_nested = message.depth > 0;
        let work = Box::new(Check {
            invocation: Invocation::new(Arc::clone(self), message),
            checked: Arc::clone(&checked),
        });
        let service = self.code.description.name.clone();
        let submitted = self.host.pool.submit(Job { ticket, service, is_nested, work })?;
        self.host.flush_later(submitted).await;
        waiting.await?;
        let found = checked.lock().unwrap_or_else(PoisonError::into_inner).take();
        found.ok_or_else(Failure::service)
    }
}

/// A message on its way to a handler thread.
struct Invocation {
    inner: Arc<Inner>,
    message: Option<Message>,
    input: InputData,
    resources: Arc<Resources>,
    is_heavy: bool,
}

impl Invocation {
    fn new(inner: Arc<Inner>, message: Message) -> Self {
        let is_heavy = inner.code.input.is_some()
            && (message.raw.len() > LARGE_BODY || matches!(&message.payload, Payload::Multipart(_)));
        Self {
            inner,
            message: Some(message),
            input: InputData::Undeclared,
            resources: Arc::default(),
            is_heavy,
        }
    }
}

impl Work for Invocation {
    fn prepare(&mut self) -> Result<(), Failure> {
        if let Some(message) = &self.message {
            self.input = self.inner.input_of(message)?;
        }
        Ok(())
    }

    fn is_heavy(&self) -> bool {
        self.is_heavy
    }

    fn run(self: Box<Self>, py: Python<'_>) -> Answer {
        let Some(message) = self.message else { return Err(Failure::service()) };
        self.inner.run(py, message, self.input, self.resources).map(Outcome::Reply)
    }
}

/// A message whose input is checked on a handler thread, and then goes on to the event loop.
struct Check {
    invocation: Invocation,
    checked: Arc<Mutex<Option<(Message, InputData)>>>,
}

impl Work for Check {
    fn prepare(&mut self) -> Result<(), Failure> {
        self.invocation.prepare()
    }

    fn is_heavy(&self) -> bool {
        true
    }

    fn run(self: Box<Self>, _py: Python<'_>) -> Answer {
        let Self { invocation: Invocation { message, input, .. }, checked } = *self;
        *checked.lock().unwrap_or_else(PoisonError::into_inner) = message.map(|message| (message, input));
        Ok(Outcome::Piece(None))
    }
}
