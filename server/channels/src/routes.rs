//! stub
use std::time::Duration;

use crate::check::RouteFault;
use crate::ports::RouteInputs;

/// Everything a request needs, compiled from one snapshot.
pub struct Routes {
    limits: ConnectionLimits,
}

/// What bounds a connection, from `[http]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    pub(crate) max_header_bytes: usize,
    pub(crate) max_headers: u16,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) tls_handshake: Duration,
    pub(crate) max_connections: usize,
    pub(crate) max_h2_streams: u32,
}

impl Routes {
    /// Compiles the channels of a snapshot.
    ///
    /// # Errors
    /// Every fault of every channel.
    pub fn build(inputs: &RouteInputs<'_>) -> Result<Self, Vec<RouteFault>> {
        let (routes, faults) = Self::build_without_faulty(inputs);
        if faults.is_empty() { Ok(routes) } else { Err(faults) }
    }

    /// As [`Routes::build`] for a start, when there is nothing older to go on serving: leaves out channels
    /// that have faults and reports them.
    #[must_use]
    pub fn build_without_faulty(inputs: &RouteInputs<'_>) -> (Self, Vec<RouteFault>) {
        let limits = ConnectionLimits::of(inputs.http);
        (Self { limits }, Vec::new())
    }

    pub(crate) fn limits(&self) -> ConnectionLimits {
        self.limits
    }
}

impl ConnectionLimits {
    fn of(http: &crosstie_model::settings::HttpSettings) -> Self {
        let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            max_header_bytes: size(http.max_header_bytes),
            max_headers: http.max_headers,
            header_timeout: Duration::from_millis(http.header_timeout_ms),
            body_timeout: Duration::from_millis(http.body_timeout_ms),
            tls_handshake: Duration::from_millis(http.tls_handshake_timeout_ms),
            max_connections: size(http.max_connections),
            max_h2_streams: http.max_h2_streams,
        }
    }
}
