//! A channel compiled for requests: everything that can be decided before one arrives is decided here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crosstie_model::definition::DataFormat;
use crosstie_model::failure::{Failure, FailureKind, Origin};
use crosstie_model::message::Principal;
use crosstie_model::ports::RateCells;
use crosstie_security::credentials::{Authenticator, Presented, Refusal};
use ipnet::IpNet;

use crate::body::coding::CompressionPolicy;
use crate::builtin::Builtin;
use crate::cors::CorsRules;
use crate::jsonrpc::JsonRpc;
use crate::passthrough::Passthrough;
use crate::ports::EntranceObserver;
use crate::rate::{EntranceRates, RateState};
use crate::server::Purpose;
use crate::soap::Soap;
use crate::target::{ConcurrencyLimit, Permit, Target, acquire};
use crate::transform::Pipelines;

/// One way into the server.
pub(crate) struct Entrance {
    pub(crate) kind: EntranceKind,
    /// Reports requests that no single service answers.
    pub(crate) observer: Arc<dyn EntranceObserver>,
    pub(crate) allow_from: Vec<IpNet>,
    pub(crate) security: Option<Arc<Authenticator>>,
    pub(crate) rates: EntranceRates,
    pub(crate) cells: Arc<dyn RateCells>,
    pub(crate) limit: Option<ConcurrencyLimit>,
    pub(crate) cors: Option<CorsRules>,
    pub(crate) max_body: usize,
    pub(crate) max_depth: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) compression: CompressionPolicy,
}

/// What lies behind an entrance.
pub(crate) enum EntranceKind {
    /// A REST channel, the body format it insists on, and what it makes of bodies.
    Rest { target: Target, format: Option<DataFormat>, transforms: Pipelines },
    /// A plain HTTP channel, and what it makes of bodies.
    Plain { target: Target, transforms: Pipelines },
    /// A JSON-RPC channel.
    JsonRpc(JsonRpc),
    /// A SOAP channel.
    Soap(Arc<Soap>),
    /// A passthrough channel.
    Passthrough(Box<Passthrough>),
    /// One of the server's own pages.
    Builtin(Builtin),
}

impl Entrance {
    /// Who reports requests of this entrance.
    pub(crate) fn observer(&self) -> &Arc<dyn EntranceObserver> {
        match &self.kind {
            EntranceKind::Rest { target, .. } | EntranceKind::Plain { target, .. } => &target.observer,
            EntranceKind::JsonRpc(_)
            | EntranceKind::Soap(_)
            | EntranceKind::Passthrough(_)
            | EntranceKind::Builtin(_) => &self.observer,
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

    /// Whether its requests can only be authenticated once their bodies were read.
    pub(crate) fn authenticates_messages(&self) -> bool {
        self.security.as_ref().is_some_and(|security| security.reads_messages())
            && matches!(self.kind, EntranceKind::Soap(_))
    }

    /// Whether its requests are answered to the end although their callers left.
    pub(crate) fn outlives_callers(&self) -> bool {
        matches!(&self.kind, EntranceKind::Soap(channel) if channel.has_one_way_operations())
    }

    /// Authenticates a request. Only types of credentials that others vouch for ever wait, and those only
    /// when nobody was asked before.
    ///
    /// # Errors
    /// What the credentials lack.
    pub(crate) async fn authenticate(
        &self,
        presented: &Presented<'_>,
    ) -> Result<Option<Arc<Principal>>, Box<Refusal>> {
        match &self.security {
            None => Ok(None),
            Some(authenticator) => authenticator.authenticate(presented).await.map(Some),
        }
    }

    /// Takes a request that came from `principal` from the rate limits.
    ///
    /// # Errors
    /// 429 when one is used up.
    pub(crate) fn take(
        &self,
        client: IpAddr,
        principal: Option<&Principal>,
    ) -> (Result<(), Failure>, Option<RateState>) {
        self.rates.of(principal).take(&*self.cells, client)
    }

    /// Takes a request with wrong credentials from the rate limits, so that guessing is limited like anything
    /// else.
    ///
    /// # Errors
    /// 429 when one is used up.
    pub(crate) fn take_refused(&self, client: IpAddr) -> (Result<(), Failure>, Option<RateState>) {
        self.rates.of_refused().take_by_address(&*self.cells, client)
    }

    /// Takes a place under the channel's own concurrency limit.
    ///
    /// # Errors
    /// 503 when all places are taken.
    pub(crate) fn acquire(&self) -> Result<Option<Permit>, Failure> {
        acquire(self.limit.as_ref(), "The channel")
    }
}
