//! What services give with a call: `params`, `query`, `headers`, `data`, `json`, `files`, `stream`, `timeout`.

use std::time::Duration;

use bytes::Bytes;
use crosstie_model::definition::OutgoingFormat;
use crosstie_model::outgoing::CallBody;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple};

use super::multipart;
use crate::python::codec;
use crate::python::context::Call;
use crate::python::interface::response::header_fields;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The arguments of one call.
pub(super) struct Arguments<'py> {
    /// Those with a place in the path fill it; the others go into the query.
    pub(super) params: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    /// How long this call may take, where it says.
    pub(super) timeout: Option<Duration>,
    /// Whether the answer is read piece by piece.
    pub(super) stream: bool,
    data: Option<Bound<'py, PyAny>>,
    json: Option<Bound<'py, PyAny>>,
    files: Option<Bound<'py, PyAny>>,
}

/// What is sent.
pub(super) enum Sending<'py> {
    /// All of it at once.
    Whole(CallBody),
    /// What an iterator, an asynchronous iterator or a file gives.
    Pieces(Bound<'py, PyAny>),
}

impl<'py> Arguments<'py> {
    /// `(params)`, after an optional cid.
    pub(super) fn without_body(
        call: &Call,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Self> {
        Self::read(call, args, more, &["params"])
    }

    /// `(data, params)`, after an optional cid.
    pub(super) fn with_body(
        call: &Call,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Self> {
        Self::read(call, args, more, &["data", "params"])
    }

    fn read(
        call: &Call,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
        names: &[&str],
    ) -> PyResult<Self> {
        let py = args.py();
        let named = match more {
            Some(more) => more.copy()?,
            None => PyDict::new(py),
        };
        let mut positional = args.iter().peekable();
        // Services written for Zato give the cid first; it goes along with every call anyway.
        positional.next_if(|first| is_cid(call, first));
        let mut names = names.iter();
        for value in positional {
            let name = names.next().ok_or_else(|| PyTypeError::new_err("too many arguments"))?;
            if named.contains(name)? {
                return Err(PyTypeError::new_err(format!("{name} is given twice")));
            }
            named.set_item(name, value)?;
        }
        let take = |name: &str| -> PyResult<Option<Bound<'py, PyAny>>> {
            let found = named.get_item(name)?;
            if found.is_some() {
                named.del_item(name)?;
            }
            Ok(found.filter(|value| !value.is_none()))
        };
        let mut headers = HeaderMap::new();
        if let Some(given) = take("headers")? {
            for (name, value) in header_fields(given.cast::<PyDict>()?)? {
                headers.append(name, value);
            }
        }
        let arguments = Self {
            params: pairs(take("params")?.as_ref(), "params")?,
            query: pairs(take("query")?.as_ref(), "query")?,
            headers,
            timeout: take("timeout")?.map(|limit| timeout(&limit)).transpose()?,
            stream: take("stream")?.is_some_and(|stream| stream.is_truthy().unwrap_or(false)),
            data: take("data")?,
            json: take("json")?,
            files: take("files")?,
        };
        match named.keys().iter().next() {
            Some(unknown) => Err(PyTypeError::new_err(format!("there is no argument named {unknown}"))),
            None => Ok(arguments),
        }
    }

    /// What is sent, and its media type unless the service gave one.
    pub(super) fn sending(
        &self,
        py: Python<'py>,
        format: OutgoingFormat,
        headers: &mut HeaderMap,
    ) -> PyResult<Sending<'py>> {
        let (sending, media_type) = match (&self.data, &self.json, &self.files) {
            (None, None, None) => return Ok(Sending::Whole(CallBody::Empty)),
            (None, Some(json), None) => (whole(encoded(json)?), JSON),
            (Some(data), None, None) => data_to_send(py, data, format)?,
            (data, None, Some(files)) => {
                let fields = pairs(data.as_ref(), "data")?;
                let (body, media_type) = multipart::encode(&fields, files)?;
                (whole(body), media_type)
            }
            _ => return Err(PyTypeError::new_err("json goes with neither data nor files")),
        };
        headers.entry(CONTENT_TYPE).or_insert(media_type);
        Ok(sending)
    }
}

fn whole<'py>(body: Vec<u8>) -> Sending<'py> {
    Sending::Whole(CallBody::Full(body.into()))
}

fn data_to_send<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    format: OutgoingFormat,
) -> PyResult<(Sending<'py>, HeaderValue)> {
    let of_format = |otherwise| match format {
        OutgoingFormat::Json => JSON,
        OutgoingFormat::Form => FORM,
        OutgoingFormat::Raw => otherwise,
    };
    if let Ok(text) = data.cast::<PyString>() {
        return Ok((whole(text.to_str()?.as_bytes().to_vec()), of_format(TEXT)));
    }
    if let Some(bytes) = bytes_of(data) {
        return Ok((Sending::Whole(CallBody::Full(bytes)), of_format(BYTES)));
    }
    let is_made_bit_by_bit = data.hasattr(intern!(py, "__next__"))?
        || data.hasattr(intern!(py, "__anext__"))?
        || data.hasattr(intern!(py, "read"))?;
    if is_made_bit_by_bit {
        return Ok((Sending::Pieces(data.clone()), of_format(BYTES)));
    }
    match format {
        OutgoingFormat::Json => Ok((whole(encoded(data)?), JSON)),
        OutgoingFormat::Form => Ok((whole(multipart::url_encoded(&pairs(Some(data), "data")?)), FORM)),
        OutgoingFormat::Raw => Err(PyTypeError::new_err(
            "data is text, bytes, a file or an iterator of those here; json= encodes other things",
        )),
    }
}

fn encoded(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    codec::to_vec(value, None).map_err(codec::EncodeError::into_exception)
}

/// The bytes that `value` holds, if it is such an object.
pub(in crate::python::interface) fn bytes_of(value: &Bound<'_, PyAny>) -> Option<Bytes> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Some(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    value.cast::<PyByteArray>().ok().map(|bytes| bytes.to_vec().into())
}

/// Whether a first argument is a correlation id: this call's, or one of that form.
pub(super) fn is_cid(call: &Call, value: &Bound<'_, PyAny>) -> bool {
    let Ok(text) = value.cast::<PyString>() else { return false };
    text.to_str().is_ok_and(|text| text == call.cid() || text.parse::<crosstie_model::Cid>().is_ok())
}

pub(super) fn timeout(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let wrong = || PyValueError::new_err("timeout is a number of seconds greater than 0");
    let limit = Duration::try_from_secs_f64(value.extract()?).map_err(|_| wrong())?;
    if limit.is_zero() { Err(wrong()) } else { Ok(limit.min(Duration::from_secs(86_400 * 365))) }
}

/// Names and values as text: a list stands for a name that repeats, `None` for one left out.
pub(super) fn pairs(value: Option<&Bound<'_, PyAny>>, argument: &str) -> PyResult<Vec<(String, String)>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let given = value
        .cast::<PyDict>()
        .map_err(|_| PyTypeError::new_err(format!("{argument} is a dict of names and values here")))?;
    let mut pairs = Vec::with_capacity(given.len());
    for (name, value) in given.iter() {
        let name = name.str()?.to_str()?.to_owned();
        if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
            for item in value.try_iter()? {
                pairs.push((name.clone(), text_of(&item?)?));
            }
        } else if !value.is_none() {
            pairs.push((name, text_of(&value)?));
        }
    }
    Ok(pairs)
}

/// A value as text: as JSON has it where that is text as well, else as Python does.
fn text_of(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = value.py();
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(if flag.is_true() { "true" } else { "false" }.to_owned());
    }
    if value.hasattr(intern!(py, "isoformat"))? {
        return value.call_method0(intern!(py, "isoformat"))?.extract();
    }
    Ok(value.str()?.to_str()?.to_owned())
}
