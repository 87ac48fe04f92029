//! One request from its head to its end: what is known of it so far, and that its end is reported once,
//! however it comes about.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crosstie_model::cid::TraceContext;
use crosstie_model::failure::{Failure, FailureKind, Origin};
use crosstie_model::message::Principal;
use crosstie_model::refusal::RefusedCredentials;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Version};

use crate::ports::{EntranceObserver, ObservedQuery, RequestRecord, STATUS_CALLER_GONE};
use crate::server::{ConnectionState, Purpose};

/// A request under way. Dropping one that was not finished reports that its caller went away.
pub(crate) struct Exchange {
    pub(crate) trace: TraceContext,
    pub(crate) started: Instant,
    pub(crate) client: IpAddr,
    pub(crate) secure: bool,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) target: Option<PathAndQuery>,
    pub(crate) principal: Option<Arc<Principal>>,
    pub(crate) refused: Option<Box<RefusedCredentials>>,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) logged_headers: Vec<(HeaderName, HeaderValue)>,
    /// Query parameters nobody may read; only where there is a query.
    pub(crate) masked: Option<Arc<BTreeSet<String>>>,
    pub(crate) bytes_in: u64,
    pub(crate) observer: Arc<dyn EntranceObserver>,
    pub(crate) connection: Arc<ConnectionState>,
    pub(crate) purpose: Purpose,
    pub(crate) failure: Option<(FailureKind, Origin)>,
    pub(crate) reported: bool,
}

impl Exchange {
    /// The path as it came, without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.as_ref().map_or("*", |target| target.path())
    }

    /// The query, with what must be masked in it.
    fn query(&self) -> Option<ObservedQuery<'_>> {
        let raw = self.target.as_ref()?.query()?;
        Some(ObservedQuery { raw, masked: self.masked.as_ref()? })
    }

    /// Remembers what went wrong, for the report.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.failure = Some((failure.kind, failure.origin));
    }

    /// Reports the end.
    pub(crate) fn finish(mut self, status: u16, bytes_out: u64) {
        self.report(status, bytes_out);
    }

    fn report(&mut self, status: u16, bytes_out: u64) {
        self.reported = true;
        self.observer.finished(&RequestRecord {
            trace: &self.trace,
            started: self.started,
            elapsed: self.started.elapsed(),
            client: self.client,
            secure: self.secure,
            version: self.version,
            method: &self.method,
            path: self.path(),
            query: self.query(),
            status,
            bytes_in: self.bytes_in,
            bytes_out,
            principal: self.principal.as_ref(),
            refused: self.refused.as_deref(),
            user_agent: self.user_agent.as_ref(),
            headers: &self.logged_headers,
            failure: self.failure,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.reported {
            self.report(STATUS_CALLER_GONE, 0);
        }
        self.connection.request_ended(self.purpose);
    }
}
