//! A call whose body a service makes piece by piece. The loop over the pieces is Python's, as a generator may
//! be asynchronous: see `bootstrap/outgoing.py`.

use std::sync::{Arc, Mutex, PoisonError};

use crosstie_model::definition::OutgoingFormat;
use crosstie_model::outgoing::{CallBody, HttpCall, HttpOutgoing};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString};
use tokio::sync::mpsc::{self, Sender};

use super::Task;
use super::answer::{HttpResponse, Received, receive};
use super::arguments::bytes_of;
use super::body::{Piece, Pieces};
use crate::python::context::Call;
use crate::python::{failure, host_call};

/// How many pieces may be on their way.
const AHEAD: usize = 2;

/// The call under way.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Exchange {
    call: Arc<Call>,
    format: OutgoingFormat,
    pieces: Mutex<Option<Sender<Piece>>>,
    answer: Mutex<Option<Task<Received>>>,
}

impl Exchange {
    /// Starts the call that `message` makes of a body.
    pub(super) fn start(
        call: &Arc<Call>,
        outgoing: Arc<dyn HttpOutgoing>,
        format: OutgoingFormat,
        stream: bool,
        message: impl FnOnce(CallBody) -> HttpCall,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let message = message(CallBody::Stream(Box::pin(Pieces::new(receiver))));
        let task = Task::spawn(call, async move { receive(outgoing.send(message).await?, stream).await });
        Self {
            call: Arc::clone(call),
            format,
            pieces: Mutex::new(Some(sender)),
            answer: Mutex::new(Some(task)),
        }
    }
}

#[pymethods]
impl Exchange {
    /// Sends a piece; says whether the other system still takes any.
    fn write<'py>(&self, piece: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = piece.py();
        let bytes = match piece.cast::<PyString>() {
            Ok(text) => text.to_str()?.as_bytes().to_vec().into(),
            Err(_) => bytes_of(piece)
                .ok_or_else(|| PyTypeError::new_err("what is sent piece by piece is text or bytes"))?,
        };
        let sender = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sent = async move {
            match sender {
                // Nothing to send is no end of it.
                Some(_) if bytes.is_empty() => true,
                Some(sender) => sender.send(Piece::Bytes(bytes)).await.is_ok(),
                None => false,
            }
        };
        host_call::run(py, &self.call, sent, |py, sent| Ok(PyBool::new(py, sent).to_owned().into_any()))
    }

    /// There are no more pieces: gives the answer.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let sender = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return Err(PyRuntimeError::new_err("the call has ended already")) };
        let (call, format) = (Arc::clone(&self.call), self.format);
        let answered = async move {
            if let Some(sender) = sender {
                // The other system may have answered before it read everything.
                let _ = sender.send(Piece::End).await;
            }
            task.await
        };
        host_call::run(py, &self.call, answered, move |py, received| match received {
            Ok(received) => Ok(Bound::new(py, HttpResponse::new(call, format, received))?.into_any()),
            Err(error) => Err(failure::from_outgoing(py, &error)),
        })
    }

    /// The service gave up: the call is cut off.
    fn abort(&self) {
        drop(self.answer.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.pieces.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
