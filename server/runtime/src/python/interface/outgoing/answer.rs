//! What another system answered.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::Failure;
use crosstie_model::definition::OutgoingFormat;
use crosstie_model::message::{ReplyBody, ReplyStream};
use crosstie_model::outgoing::{AnswerBody, HttpAnswer, OutgoingError, Trouble, whole_answer};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use serde_json::Value;

use crate::python::context::Call;
use crate::python::interface::Headers;
use crate::python::{failure, host_call, json};

/// An answer as it comes to the service.
pub(super) struct Received {
    status: StatusCode,
    headers: HeaderMap,
    body: ReceivedBody,
}

/// A body that is read piece by piece; shared with a read under way.
type Stream = Arc<tokio::sync::Mutex<Option<AnswerBody>>>;

#[derive(Clone)]
enum ReceivedBody {
    Whole(Bytes),
    Stream(Stream),
}

/// Reads an answer's body, unless the service does that itself.
pub(super) async fn receive(answer: HttpAnswer, stream: bool) -> Result<Received, OutgoingError> {
    let HttpAnswer { status, headers, body, .. } = answer;
    let body = if stream {
        ReceivedBody::Stream(Arc::new(tokio::sync::Mutex::new(Some(body))))
    } else {
        ReceivedBody::Whole(whole_answer(body).await?)
    };
    Ok(Received { status, headers, body })
}

/// The next piece that holds something.
async fn next_piece(stream: Stream) -> Result<Option<Bytes>, OutgoingError> {
    let mut body = stream.lock().await;
    loop {
        let Some(reading) = body.as_mut() else { return Ok(None) };
        match reading.frame().await {
            None => *body = None,
            Some(Err(error)) => {
                *body = None;
                return Err(error);
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                _ => {}
            },
        }
    }
}

/// An answer on its way through.
struct PassedOn(Option<AnswerBody>);

impl fmt::Debug for PassedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassedOn")
    }
}

#[async_trait]
impl ReplyStream for PassedOn {
    async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        loop {
            match self.0.as_mut()?.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Some(Ok(data)),
                    _ => {}
                },
                Some(Err(error)) => {
                    self.0 = None;
                    return Some(Err(error.into()));
                }
                None => self.0 = None,
            }
        }
    }
}

/// The answer of another system.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct HttpResponse {
    call: Arc<Call>,
    format: OutgoingFormat,
    status: StatusCode,
    headers: HeaderMap,
    body: Arc<Mutex<ReceivedBody>>,
    /// Whether the whole body was given out as the one piece it is.
    is_given: Mutex<bool>,
}

impl HttpResponse {
    pub(super) fn new(call: Arc<Call>, format: OutgoingFormat, received: Received) -> Self {
        let Received { status, headers, body } = received;
        let body = Arc::new(Mutex::new(body));
        Self { call, format, status, headers, body, is_given: Mutex::new(false) }
    }

    fn body(&self) -> MutexGuard<'_, ReceivedBody> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of the body. Waits for it where a thread may wait.
    fn bytes(&self, py: Python<'_>) -> PyResult<Bytes> {
        if let ReceivedBody::Whole(bytes) = &*self.body() {
            return Ok(bytes.clone());
        }
        if host_call::is_awaited(&self.call) {
            return Err(PyRuntimeError::new_err("the answer is a stream: await response.read() first"));
        }
        self.read(py)?;
        match &*self.body() {
            ReceivedBody::Whole(bytes) => Ok(bytes.clone()),
            ReceivedBody::Stream(_) => Ok(Bytes::new()),
        }
    }

    /// What has not been read of it as the body of a reply, with its media type. Nothing of this is Python's: the
    /// pieces go from one connection to the other.
    pub(crate) fn passed_on(&self) -> (ReplyBody, Option<HeaderValue>) {
        let body = match &*self.body() {
            ReceivedBody::Whole(bytes) => ReplyBody::Bytes(bytes.clone()),
            // A read under way on another thread has what there is.
            ReceivedBody::Stream(stream) => match stream.try_lock().ok().and_then(|mut rest| rest.take()) {
                Some(rest) => ReplyBody::Stream(Box::new(PassedOn(Some(rest)))),
                None => ReplyBody::Empty,
            },
        };
        (body, self.headers.get(CONTENT_TYPE).cloned())
    }

    fn media_type(&self) -> String {
        let text = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The charset that the answer names.
    fn charset(&self) -> Option<String> {
        let text = self.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let parameter = text.split(';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
        });
        parameter.map(str::to_ascii_lowercase)
    }

    fn decoded<'py>(&self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        match self.charset().as_deref() {
            None | Some("utf-8" | "utf8" | "us-ascii") => {
                Ok(PyString::new(py, &String::from_utf8_lossy(bytes)).into_any())
            }
            Some(charset) => PyBytes::new(py, bytes)
                .call_method1(intern!(py, "decode"), (charset, "replace"))
                .or_else(|_| Ok(PyString::new(py, &String::from_utf8_lossy(bytes)).into_any())),
        }
    }

    /// Gives what `shown` makes of the next piece.
    fn advance<'py, S>(&self, py: Python<'py>, shown: S) -> PyResult<Bound<'py, PyAny>>
    where
        S: for<'a> FnOnce(Python<'a>, Option<Bytes>) -> PyResult<Bound<'a, PyAny>> + Send + 'static,
    {
        let body = self.body().clone();
        let given = {
            let mut is_given = self.is_given.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *is_given, true)
        };
        let next = async move {
            match body {
                ReceivedBody::Whole(bytes) => Ok((!given && !bytes.is_empty()).then_some(bytes)),
                ReceivedBody::Stream(stream) => next_piece(stream).await,
            }
        };
        super::run(py, &self.call, next, shown)
    }
}

#[pymethods]
impl HttpResponse {
    #[getter]
    fn status_code(&self) -> u16 {
        self.status.as_u16()
    }

    #[getter]
    fn reason(&self) -> &str {
        self.status.canonical_reason().unwrap_or_default()
    }

    #[getter]
    fn ok(&self) -> bool {
        self.status.as_u16() < 400
    }

    #[getter]
    fn headers(&self) -> Headers {
        Headers::of(self.headers.clone())
    }

    #[getter]
    fn content<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.bytes(py)?))
    }

    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.content(py)
    }

    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.decoded(py, &self.bytes(py)?)
    }

    /// The body by its type: decoded JSON, text, or bytes; `None` without one.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let bytes = self.bytes(py)?;
        if bytes.is_empty() {
            return Ok(py.None().into_bound(py));
        }
        let media_type = self.media_type();
        let says_json = media_type == "application/json" || media_type.ends_with("+json");
        if says_json || (media_type.is_empty() && self.format == OutgoingFormat::Json) {
            return self.json(py);
        }
        if media_type.starts_with("text/") || self.charset().is_some() {
            return self.decoded(py, &bytes);
        }
        Ok(PyBytes::new(py, &bytes).into_any())
    }

    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let value: Value = serde_json::from_slice(&self.bytes(py)?).map_err(|error| {
            let detail = format!("the answer is no JSON: line {}, column {}", error.line(), error.column());
            failure::from_outgoing(py, &OutgoingError::new(Trouble::Protocol, detail))
        })?;
        json::to_python(py, &value)
    }

    fn raise_for_status(this: &Bound<'_, Self>) -> PyResult<()> {
        let own = this.get();
        if own.ok() { Ok(()) } else { Err(failure::upstream_error(this.py(), this.as_any())) }
    }

    /// Reads what has not been read yet.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (body, kept) = (self.body().clone(), Arc::clone(&self.body));
        let read = async move {
            let stream = match body {
                ReceivedBody::Whole(bytes) => return Ok(bytes),
                ReceivedBody::Stream(stream) => stream,
            };
            let rest = stream.lock().await.take();
            let bytes = match rest {
                Some(rest) => whole_answer(rest).await?,
                None => Bytes::new(),
            };
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = ReceivedBody::Whole(bytes.clone());
            Ok(bytes)
        };
        super::run(py, &self.call, read, |py, bytes| Ok(PyBytes::new(py, &bytes).into_any()))
    }

    /// Cuts the answer off, if it has not been read.
    fn close(&self) {
        let mut body = self.body();
        if matches!(*body, ReceivedBody::Stream(_)) {
            *body = ReceivedBody::Whole(Bytes::new());
        }
    }

    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.advance(py, |py, piece| match piece {
            Some(piece) => Ok(PyBytes::new(py, &piece).into_any()),
            None => Err(PyStopIteration::new_err(())),
        })
    }

    fn __aiter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.advance(py, |py, piece| match piece {
            Some(piece) => Ok(PyBytes::new(py, &piece).into_any()),
            None => Err(PyStopAsyncIteration::new_err(())),
        })
    }

    fn __enter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, pyo3::types::PyTuple>) {
        self.close();
    }

    fn __aenter__<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, call) = (this.py(), Arc::clone(&this.get().call));
        let this = this.unbind();
        host_call::run(py, &call, async move { this }, |py, this| Ok(this.into_bound(py).into_any()))
    }

    #[pyo3(signature = (*_error))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        _error: &Bound<'py, pyo3::types::PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.close();
        host_call::run(py, &self.call, async {}, |py, ()| Ok(py.None().into_bound(py)))
    }

    fn __bool__(&self) -> bool {
        self.ok()
    }

    fn __repr__(&self) -> String {
        format!("<answer {}>", self.status.as_u16())
    }
}
