//! The server's own pages on the service port: health, metrics, the OpenAPI document and its try-it page.
//! They answer GET (and so HEAD) without credentials; what they show is what `server.toml` chose to show.

use std::sync::Arc;

use bytes::Bytes;
use crosstie_model::Failure;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::document::Document;
use crate::ports::ServerStatus;
use crate::response::Outgoing;

/// Everything on the page comes from the page's own server; nothing inline, nothing framed.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One page.
pub(crate) enum Builtin {
    /// The process runs.
    Live,
    /// The server should get traffic.
    Ready(Arc<dyn ServerStatus>),
    /// Prometheus metrics.
    Metrics(Arc<dyn ServerStatus>),
    /// The OpenAPI document.
    OpenApi(Arc<Document>),
    /// A file of the try-it page, with its media type.
    File(&'static str, &'static str),
}

impl Builtin {
    /// The try-it page's files by their path below the OpenAPI path.
    pub(crate) const UI: [(&'static str, &'static str, &'static str); 3] = [
        ("ui", include_str!("openapi/ui/index.html"), "text/html; charset=utf-8"),
        ("ui/app.js", include_str!("openapi/ui/app.js"), "text/javascript; charset=utf-8"),
        ("ui/style.css", include_str!("openapi/ui/style.css"), "text/css; charset=utf-8"),
    ];

    /// Whether it is there for whoever watches the server. Such requests come all the time, so they are no
    /// sign that anybody still uses it.
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self, Self::Live | Self::Ready(_) | Self::Metrics(_))
    }

    /// The page.
    ///
    /// # Errors
    /// 500 when the document could not be made.
    pub(crate) async fn answer(&self) -> Result<Response<Outgoing>, Failure> {
        Ok(match self {
            Self::Live => page("application/json", Bytes::from_static(b"{\"live\":true}")),
            Self::Ready(status) => {
                let readiness = status.readiness();
                let body = json!({"ready": readiness.ready, "detail": readiness.detail}).to_string();
                let mut response = page("application/json", body.into());
                if !readiness.ready {
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                }
                response
            }
            Self::Metrics(status) => {
                page("text/plain; version=0.0.4; charset=utf-8", status.metrics().into())
            }
            Self::OpenApi(document) => page("application/json", document.text().await?),
            Self::File(content, media) => {
                let mut response = page(media, Bytes::from_static(content.as_bytes()));
                let headers = response.headers_mut();
                headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
                headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                response
            }
        })
    }
}

fn page(media: &'static str, body: Bytes) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::Whole(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    // Each says how things are now.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
