//! Replies that a generator makes piece by piece.
//!
//! The first piece is made as part of the call, so what fails before it is a proper failure. Each further one
//! is made when the channel has room for it, on a handler thread (or the event loop for an asynchronous
//! generator), within as much time as the call had. A stream that is dropped closes its generator.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::message::{ReplyBody, ReplyStream};
use crosstie_model::{Failure, ServiceName};
use http::HeaderValue;
use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString, PyTuple};

use super::codec::{self, EncodeError};
use super::context::{Call, run_user_code};
use super::event_loop::Purpose;
use super::failure;
use super::interface::HttpResponse;
use super::pool::{Job, Submitted, Work};
use super::ticket::{Answer, Outcome, Ticket};
use super::unit::Unit;

/// Pieces that are neither text nor bytes are JSON texts, one a line.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// A generator that a reply reads from.
struct Stream {
    call: Arc<Call>,
    unit: Arc<Unit>,
    generator: Arc<Py<PyAny>>,
    is_async: bool,
    /// How long one piece may take.
    patience: Duration,
    first: Option<Bytes>,
    is_ended: bool,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream of {:?}", self.call)
    }
}

/// The body that `payload` streams, with the media type its first piece implies, if it is a generator.
///
/// # Errors
/// The generator failed before its first piece.
pub(crate) fn open(
    call: &Arc<Call>,
    unit: &Arc<Unit>,
    payload: &Bound<'_, PyAny>,
) -> PyResult<Option<(ReplyBody, Option<HeaderValue>)>> {
    let py = payload.py();
    if let Ok(answer) = payload.cast::<HttpResponse>() {
        return Ok(Some(answer.get().passed_on()));
    }
    let (generator, first, is_async) =
        if payload.get_type().name()? == "Stream" && payload.hasattr(intern!(py, "pieces"))? {
            let pieces = payload.getattr(intern!(py, "pieces"))?.cast_into::<PyTuple>()?;
            (payload.getattr(intern!(py, "generator"))?, pieces.iter().next(), true)
        } else if payload.hasattr(intern!(py, "__next__"))? {
            (payload.clone(), next(payload)?, false)
        } else {
            return Ok(None);
        };
    let is_raw = first.as_ref().is_none_or(is_raw);
    let first = first.map(|item| encode(&item)).transpose()?;
    let stream = Stream {
        call: Arc::clone(call),
        unit: Arc::clone(unit),
        generator: Arc::new(generator.unbind()),
        is_async,
        patience: call.message.deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1)),
        is_ended: first.is_none(),
        first,
    };
    Ok(Some((ReplyBody::Stream(Box::new(stream)), (!is_raw).then_some(LINES))))
}

/// The next item of a generator.
fn next<'py>(generator: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = generator.py();
    match generator.call_method0(intern!(py, "__next__")) {
        Ok(item) => Ok(Some(item)),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The piece in the tuple that an asynchronous generator's step gives; an empty one is the end.
///
/// # Errors
/// The piece has no form in JSON.
pub(crate) fn piece(pieces: &Bound<'_, PyAny>) -> PyResult<Option<Bytes>> {
    pieces.cast::<PyTuple>()?.iter().next().map(|item| encode(&item)).transpose()
}

fn is_raw(item: &Bound<'_, PyAny>) -> bool {
    item.is_instance_of::<PyString>()
        || item.is_instance_of::<PyBytes>()
        || item.is_instance_of::<PyByteArray>()
}

fn encode(item: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(text) = item.cast::<PyString>() {
        return Ok(Bytes::copy_from_slice(text.to_str()?.as_bytes()));
    }
    if let Ok(bytes) = item.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    if let Ok(bytes) = item.cast::<PyByteArray>() {
        return Ok(bytes.to_vec().into());
    }
    let mut line = codec::to_vec(item, None).map_err(EncodeError::into_exception)?;
    line.push(b'\n');
    Ok(line.into())
}

impl Stream {
    fn name(&self) -> ServiceName {
        self.call.name().clone()
    }

    fn submit(&self, ticket: &Arc<Ticket>, purpose: Purpose) -> Result<(), Failure> {
        let (call, unit) = (Arc::clone(&self.call), Arc::clone(&self.unit));
        if self.is_async {
            return self.call.host.events.submit(call, unit, purpose, Arc::clone(ticket));
        }
        let deadline = ticket.deadline;
        let work = Box::new(Turn { call, _unit: unit, purpose, deadline });
        // A stream under way has its place already: refusing it would cut the reply.
        let ticket = Arc::clone(ticket);
        let job = Job { ticket, service: self.name(), is_nested: true, work };
        if self.call.host.pool.submit(job)? == Submitted::FlushDue {
            self.call.host.pool.flush();
        }
        Ok(())
    }
}

#[async_trait]
impl ReplyStream for Stream {
    async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        if self.is_ended {
            return None;
        }
        let ticket = Ticket::new(Instant::now() + self.patience);
        let waiting = ticket.wait();
        let answer = match self.submit(&ticket, Purpose::Advance(Arc::clone(&self.generator))) {
            Ok(()) => waiting.await,
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(Outcome::Piece(Some(piece))) => Some(Ok(piece)),
            Ok(_) => {
                self.is_ended = true;
                self.call.resources.close();
                None
            }
            Err(failure) => {
                self.is_ended = true;
                self.call.resources.close();
                Some(Err(failure))
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.is_ended {
            let ticket = Ticket::new(Instant::now() + self.patience);
            if let Err(failure) = self.submit(&ticket, Purpose::Close(Arc::clone(&self.generator))) {
                tracing::warn!(service = %self.name(), %failure, "a stream could not be closed");
                self.call.resources.close();
            }
        }
    }
}

/// One turn of a generator on a handler thread.
struct Turn {
    call: Arc<Call>,
    /// Keeps the code loaded.
    _unit: Arc<Unit>,
    purpose: Purpose,
    deadline: Instant,
}

impl Work for Turn {
    fn run(self: Box<Self>, py: Python<'_>) -> Answer {
        let turned = run_user_code(py, &self.call, self.deadline, || match &self.purpose {
            Purpose::Advance(generator) => {
                next(generator.bind(py))?.map(|item| encode(&item)).transpose().map(Outcome::Piece)
            }
            Purpose::Close(generator) => {
                let generator = generator.bind(py);
                if generator.hasattr(intern!(py, "close"))? {
                    generator.call_method0(intern!(py, "close"))?;
                }
                self.call.resources.close();
                Ok(Outcome::Piece(None))
            }
            Purpose::Handle => Ok(Outcome::Piece(None)),
        });
        turned.map_err(|error: PyErr| {
            failure::from_exception(py, &error, self.call.message.trace.cid, self.call.name())
        })
    }
}
