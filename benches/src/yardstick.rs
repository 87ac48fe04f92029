//! The yardstick of the HTTP rows: the least a hyper server can do. It reads the body and answers the same
//! bytes as the measured service.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What both servers answer to `{"name":"Ada"}`.
pub(crate) const ANSWER: &str = r#"{"text":"Hello Ada","visits":0}"#;

/// Serves on one thread until killed.
///
/// # Errors
/// The port is taken.
pub(crate) fn serve(port: u16) -> Result<()> {
    listen(port, answer)
}

/// Answers every request at `port` of loopback with `answer`, on one thread, until killed.
///
/// # Errors
/// The port is taken.
pub(crate) fn listen<A>(port: u16, answer: fn(Request<Incoming>) -> A) -> Result<()>
where
    A: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + 'static,
{
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    tokio::task::spawn_local(
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
                    );
                }
            })
            .await
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // A body that breaks off ends the connection, which is hyper's business.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER.as_bytes())));
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}
