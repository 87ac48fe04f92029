//! Forms as they are sent: `application/x-www-form-urlencoded` and `multipart/form-data` (RFC 7578).

use bytes::Bytes;
use http::HeaderValue;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::arguments::bytes_of;

/// What a file's part says it is when the service does not.
const UNKNOWN: &str = "application/octet-stream";

/// One file.
struct File {
    field: String,
    name: String,
    media_type: String,
    content: Bytes,
}

/// Names and values as the body of a form.
pub(super) fn url_encoded(fields: &[(String, String)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        if !body.is_empty() {
            body.push(b'&');
        }
        encode_into(name, &mut body);
        body.push(b'=');
        encode_into(value, &mut body);
    }
    body
}

/// URL Standard, section 5.2: all but a few characters encoded, spaces as plus signs.
fn encode_into(text: &str, body: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b' ' => body.push(b'+'),
            b'*' | b'-' | b'.' | b'_' => body.push(byte),
            byte if byte.is_ascii_alphanumeric() => body.push(byte),
            byte => {
                let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
                body.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}

/// The body with these fields and files, and its media type. `files` maps fields to content, to
/// `(name, content)` or to `(name, content, media type)`; content is text, bytes or a file.
pub(super) fn encode(
    fields: &[(String, String)],
    files: &Bound<'_, PyAny>,
) -> PyResult<(Vec<u8>, HeaderValue)> {
    let given = files.cast::<PyDict>().map_err(|_| PyTypeError::new_err("files is a dict of fields"))?;
    let mut read = Vec::with_capacity(given.len());
    for (field, value) in given.iter() {
        read.push(file(field.str()?.to_str()?.to_owned(), &value)?);
    }
    // Random, so that no content holds it.
    let boundary = format!("crosstie-{}", crosstie_model::Cid::random());
    let mut body = Vec::new();
    for (name, value) in fields {
        let head =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"\r\n\r\n", quoted(name));
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    for File { field, name, media_type, content } in read {
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\n\
             Content-Type: {media_type}\r\n\r\n",
            quoted(&field),
            quoted(&name)
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let media_type = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}"))
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((body, media_type))
}

/// A name as browsers write it (HTML Standard, section 4.10.22.8): quotes and line ends encoded.
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

fn file(field: String, value: &Bound<'_, PyAny>) -> PyResult<File> {
    let Ok(tuple) = value.cast::<PyTuple>() else {
        let name = name_of(value).unwrap_or_else(|| field.clone());
        return Ok(File { name, media_type: UNKNOWN.to_owned(), content: content_of(value)?, field });
    };
    let wrong = || PyTypeError::new_err("a file is (name, content) or (name, content, media type)");
    let mut items = tuple.iter();
    let (Some(name), Some(content)) = (items.next(), items.next()) else { return Err(wrong()) };
    let media_type = items.next().map_or(Ok(UNKNOWN.to_owned()), |media_type| media_type.extract())?;
    if items.next().is_some() || HeaderValue::from_str(&media_type).is_err() {
        return Err(wrong());
    }
    Ok(File { field, name: name.extract()?, media_type, content: content_of(&content)? })
}

/// The name of an open file, without its directory.
fn name_of(value: &Bound<'_, PyAny>) -> Option<String> {
    let name: String = value.getattr(intern!(value.py(), "name")).ok()?.extract().ok()?;
    name.rsplit('/').next().map(str::to_owned)
}

fn content_of(value: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let py = value.py();
    let value = if value.hasattr(intern!(py, "read"))? {
        value.call_method0(intern!(py, "read"))?
    } else {
        value.clone()
    };
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Bytes::copy_from_slice(text.to_str()?.as_bytes()));
    }
    bytes_of(&value).ok_or_else(|| PyTypeError::new_err("the content of a file is text, bytes or a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded_as_the_url_standard_says() {
        let fields = [("a b".to_owned(), "ü&=+*-._~".to_owned()), ("c".to_owned(), String::new())];
        assert_eq!(String::from_utf8(url_encoded(&fields)).unwrap(), "a+b=%C3%BC%26%3D%2B*-._%7E&c=");
    }
}
