//! A channel compiled for requests: everything that can be decided before one arrives is decided here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crosstie_model::definition::DataFormat;
use crosstie_model::failure::{Failure, FailureKind, Origin};
use crosstie_model::message::Principal;
use crosstie_model::ports::RateCells;
use crosstie_security::credentials::Authenticator;
use http::HeaderMap;
use ipnet::IpNet;

use crate::body::coding::CompressionPolicy;
use crate::builtin::Builtin;
use crate::cors::CorsRules;
use crate::jsonrpc::JsonRpc;
use crate::ports::EntranceObserver;
use crate::rate::{RateLimits, RateState};
use crate::server::Purpose;
use crate::target::{ConcurrencyLimit, Permit, Target, acquire};

/// One way into the server.
pub(crate) struct Entrance {
    pub(crate) kind: EntranceKind,
    /// Reports requests that no single service answers.
    pub(crate) observer: Arc<dyn EntranceObserver>,
    pub(crate) allow_from: Vec<IpNet>,
    pub(crate) security: Option<Arc<Authenticator>>,
    pub(crate) rates: RateLimits,
    pub(crate) cells: Arc<dyn RateCells>,
    pub(crate) limit: Option<ConcurrencyLimit>,
    pub(crate) cors: Option<CorsRules>,
    pub(crate) max_body: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) compression: CompressionPolicy,
}

/// What lies behind an entrance.
pub(crate) enum EntranceKind {
    /// A REST channel and the body format it insists on.
    Rest { target: Target, format: Option<DataFormat> },
    /// A plain HTTP channel.
    Plain { target: Target },
    /// A JSON-RPC channel.
    JsonRpc(JsonRpc),
    /// One of the server's own pages.
    Builtin(Builtin),
}

impl Entrance {
    /// Who reports requests of this entrance.
    pub(crate) fn observer(&self) -> &Arc<dyn EntranceObserver> {
        match &self.kind {
            EntranceKind::Rest { target, .. } | EntranceKind::Plain { target } => &target.observer,
            EntranceKind::JsonRpc(_) | EntranceKind::Builtin(_) => &self.observer,
        }
    }

    /// What its requests are for.
    pub(crate) fn purpose(&self) -> Purpose {
        match &self.kind {
            EntranceKind::Builtin(page) if page.is_probe() => Purpose::Probe,
            _ => Purpose::Service,
        }
    }

    /// Whether requests from `client` are let in at all.
    ///
    /// # Errors
    /// 403 from outside `allow_from`.
    pub(crate) fn check_address(&self, client: IpAddr) -> Result<(), Failure> {
        if self.allow_from.is_empty() || self.allow_from.iter().any(|network| network.contains(&client)) {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Forbidden, Origin::Client)
            .with_text("Requests from this address are not allowed"))
    }

    /// Authenticates a request and takes it from the rate limits.
    ///
    /// # Errors
    /// 401, or 429 when a rate limit is used up; then also for a request with wrong credentials, so that
    /// guessing is limited like anything else.
    pub(crate) fn authenticate(
        &self,
        client: IpAddr,
        headers: &HeaderMap,
        query: &[(String, String)],
    ) -> (Result<Option<Arc<Principal>>, Failure>, Option<RateState>) {
        let principal = match &self.security {
            None => None,
            Some(authenticator) => match authenticator.authenticate(headers, query) {
                Ok(principal) => Some(principal),
                Err(refusal) => {
                    let (outcome, state) = self.rates.take_by_address(&*self.cells, client);
                    return (Err(outcome.err().unwrap_or(refusal)), state);
                }
            },
        };
        let (outcome, state) = self.rates.take(&*self.cells, client);
        (outcome.map(|()| principal), state)
    }

    /// Takes a place under the channel's own concurrency limit.
    ///
    /// # Errors
    /// 503 when all places are taken.
    pub(crate) fn acquire(&self) -> Result<Option<Permit>, Failure> {
        acquire(self.limit.as_ref(), "The channel")
    }
}
