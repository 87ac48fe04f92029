//! The other system, to which the server and nginx hand requests on: it answers each with what it was sent.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response};

use crate::requests::PATH_FIELD;
use crate::yardstick::listen;

/// At this path it is the SOAP service `Echo`: the answer is an envelope with the operation's response.
pub(crate) const SOAP_PATH: &str = "/soap";

/// Serves on one thread until killed.
///
/// # Errors
/// The port is taken.
pub(crate) fn serve(port: u16) -> Result<()> {
    listen(port, answer)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A body that breaks off ends the connection, which is hyper's business.
    let sent = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let is_soap = head.uri.path() == SOAP_PATH;
    let mut response = Response::new(Full::new(if is_soap { responded(&sent) } else { sent }));
    let fields = response.headers_mut();
    if let Some(content_type) = head.headers.get(CONTENT_TYPE) {
        fields.insert(CONTENT_TYPE, content_type.clone());
    }
    if let Ok(path) = HeaderValue::from_str(head.uri.path()) {
        fields.insert(HeaderName::from_static(PATH_FIELD), path);
    }
    Ok(response)
}

/// The body's element, which is called `Echo` whatever its prefix, under the response's name.
fn responded(sent: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(sent);
    Bytes::from(text.replace("Echo ", "EchoResponse ").replace("Echo>", "EchoResponse>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_answered_with_the_operations_response() {
        let sent = "<s:Body><n:Echo xmlns:n=\"urn:echo\"><n:text>x</n:text></n:Echo></s:Body>";
        let answer =
            "<s:Body><n:EchoResponse xmlns:n=\"urn:echo\"><n:text>x</n:text></n:EchoResponse></s:Body>";
        assert_eq!(responded(sent.as_bytes()), answer);
    }
}
