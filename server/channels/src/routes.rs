//! The routing table: every channel of one snapshot, compiled, and the server's own pages, found by path and
//! method.
//!
//! Built off the hot path and swapped in whole. Channels come from definitions and from code alike; a service
//! is resolved to its loaded form here, so that a request needs no second lookup and in-flight requests keep
//! the version they started with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crosstie_model::Snapshot;
use crosstie_model::definition::{
    AmqpChannel, ChannelDefinition, DefinitionName, HttpEntrance, JsonRpcChannel, PassthroughChannel,
    SoapChannel, Transforms,
};
use crosstie_model::message::ChannelInfo;
use crosstie_model::names::ServiceName;
use crosstie_model::settings::HttpSettings;
use crosstie_model::snapshot::EffectiveChannel;
use crosstie_security::tls;
use http::{HeaderName, Method};
use rustls::RootCertStore;

use crate::amqp::PlannedAmqp;
use crate::amqp::Work;
use crate::body::coding::CompressionPolicy;
use crate::builtin::Builtin;
use crate::check::{RouteFault, check_channels, reserved_paths};
use crate::client_address::TrustedProxies;
use crate::cors::CorsRules;
use crate::document::Document;
use crate::entrance::{Entrance, EntranceKind};
use crate::jsonrpc::JsonRpc;
use crate::methods::{Leaf, MethodSet};
use crate::passthrough::{self, Passthrough, PassthroughLimits};
use crate::pattern::{PathPattern, PathTrie};
use crate::ports::{EntranceObserver, ObservedEntrance, Ports, RequestObserver, RouteInputs};
use crate::rate::EntranceRates;
use crate::soap::Soap;
use crate::target::{ConcurrencyLimit, Target};
use crate::transform::Pipelines;
use crate::{openapi, openrpc};

/// Everything a request needs, compiled from one snapshot.
pub struct Routes {
    pub(crate) trie: PathTrie<Leaf>,
    /// Some entrance answers requests to the end although their callers leave.
    pub(crate) outlive_callers: bool,
    limits: ConnectionLimits,
    pub(crate) proxies: TrustedProxies,
    pub(crate) unmatched: Arc<dyn EntranceObserver>,
    pub(crate) logged_headers: Vec<HeaderName>,
    pub(crate) masked_parameters: Arc<BTreeSet<String>>,
    /// Header fields whose values nobody may read.
    pub(crate) masked_headers: Arc<BTreeSet<String>>,
    observer: Arc<dyn RequestObserver>,
    client_authorities: Option<Arc<RootCertStore>>,
    channels: usize,
    amqp: Vec<PlannedAmqp>,
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
    /// Every fault of every channel. A snapshot that has one should not replace one that serves.
    pub fn build(inputs: &RouteInputs<'_>) -> Result<Self, Vec<RouteFault>> {
        let (routes, faults) = Self::build_without_faulty(inputs);
        if faults.is_empty() { Ok(routes) } else { Err(faults) }
    }

    /// As [`Routes::build`] for a start, when there is nothing older to go on serving: leaves out channels
    /// that have faults and reports them.
    #[must_use]
    pub fn build_without_faulty(inputs: &RouteInputs<'_>) -> (Self, Vec<RouteFault>) {
        let (channels, mut faults) = all_channels(&inputs.snapshot);
        let reserved = reserved_paths(inputs.http, inputs.metrics_path);
        faults.extend(check_channels(&inputs.snapshot, &channels, &reserved, inputs.require_security));
        let faulty: BTreeSet<&DefinitionName> = faults.iter().map(|fault| &fault.channel).collect();
        let observe = |channel, kind, service| {
            let observed = ObservedEntrance { channel, kind, service, message_log: None };
            inputs.ports.observer.prepare(&observed)
        };
        let mut routes = Self {
            trie: PathTrie::default(),
            outlive_callers: false,
            limits: ConnectionLimits::of(inputs.http),
            proxies: TrustedProxies::new(&inputs.http.trusted_proxies),
            unmatched: observe("none", "none", None),
            logged_headers: logged_headers(inputs),
            masked_parameters: Arc::clone(inputs.authenticators.query_parameters_to_mask()),
            masked_headers: Arc::new(inputs.authenticators.headers_to_mask().clone()),
            observer: Arc::clone(&inputs.ports.observer),
            client_authorities: None,
            channels: 0,
            amqp: Vec::new(),
        };
        let mut authorities = Vec::new();
        for channel in &channels {
            if !channel.definition.is_active() || faulty.contains(&channel.name) {
                continue;
            }
            let compiler = Compiler { inputs, channel };
            if let ChannelDefinition::Amqp(settings) = &channel.definition {
                routes.amqp.extend(compiler.amqp(settings));
            }
            if let Some(entrance) = channel.definition.entrance() {
                routes.add_channel(&compiler, entrance);
                let security = entrance.security.as_ref().and_then(|name| inputs.authenticators.find(name));
                authorities
                    .extend(security.map(|security| security.client_authorities()).unwrap_or_default());
            }
        }
        routes.client_authorities = tls::all_of(&authorities);
        routes.add_builtins(inputs, &observe("builtin", "builtin", None));
        (routes, faults)
    }

    /// How many channels are open.
    #[must_use]
    pub fn open_channels(&self) -> usize {
        self.channels
    }

    /// The AMQP channels of the same snapshot.
    #[must_use]
    pub fn amqp(&self) -> &[PlannedAmqp] {
        &self.amqp
    }

    pub(crate) fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    pub(crate) fn observer(&self) -> &Arc<dyn RequestObserver> {
        &self.observer
    }

    /// The authorities of all certificates that channels want from clients; `None` when none does.
    pub(crate) fn client_authorities(&self) -> Option<&Arc<RootCertStore>> {
        self.client_authorities.as_ref()
    }

    fn add_channel(&mut self, compiler: &Compiler<'_>, source: &HttpEntrance) {
        // The check saw to it that there is something to compile.
        let Some((methods, entrance)) = compiler.compile(source) else { return };
        // The check saw to it that the pattern parses.
        let Ok(pattern) = PathPattern::parse(&source.path) else { return };
        self.outlive_callers |= entrance.outlives_callers();
        self.add(&pattern, methods, Arc::new(entrance));
        self.channels += 1;
    }

    fn add(&mut self, pattern: &PathPattern, methods: MethodSet, entrance: Arc<Entrance>) {
        let names = pattern.params().map(|(name, _)| Arc::clone(name)).collect();
        self.trie.slot(pattern).get_or_insert_default().add(methods, names, entrance);
    }

    fn add_builtins(&mut self, inputs: &RouteInputs<'_>, observer: &Arc<dyn EntranceObserver>) {
        let status = &inputs.ports.status;
        let mut pages = vec![
            ("/health/live".to_owned(), Builtin::Live),
            ("/health/ready".to_owned(), Builtin::Ready(Arc::clone(status))),
        ];
        if !inputs.metrics_path.is_empty() {
            pages.push((inputs.metrics_path.to_owned(), Builtin::Metrics(Arc::clone(status))));
        }
        let path = &inputs.http.openapi_path;
        if !path.is_empty() {
            let (snapshot, title) = (Arc::clone(&inputs.snapshot), status.title());
            let document = Document::new(move || openapi::document(&snapshot, &title));
            pages.push((path.clone(), Builtin::OpenApi(document)));
            let base = path.trim_end_matches('/');
            for (file, content, media) in Builtin::UI {
                pages.push((format!("{base}/{file}"), Builtin::File(content, media)));
            }
        }
        for (path, page) in pages {
            // Settings are checked against a pattern that allows no braces.
            let Ok(pattern) = PathPattern::parse(&path) else { continue };
            let entrance = builtin_entrance(inputs, Arc::clone(observer), page);
            self.add(&pattern, MethodSet::Listed(vec![Method::GET]), Arc::new(entrance));
        }
    }
}

impl ConnectionLimits {
    fn of(http: &HttpSettings) -> Self {
        Self {
            max_header_bytes: size(u64::from(http.max_header_bytes)),
            max_headers: http.max_headers,
            header_timeout: Duration::from_millis(http.header_timeout_ms),
            body_timeout: Duration::from_millis(http.body_timeout_ms),
            tls_handshake: Duration::from_millis(http.tls_handshake_timeout_ms),
            max_connections: size(u64::from(http.max_connections)),
            max_h2_streams: http.max_h2_streams,
        }
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The snapshot's channels. Checks keep a wrong declaration in code out of the ODB; should one be there all
/// the same, the explicit definitions are still good.
fn all_channels(snapshot: &Snapshot) -> (Vec<EffectiveChannel>, Vec<RouteFault>) {
    match snapshot.effective_channels() {
        Ok(channels) => (channels, Vec::new()),
        Err(error) => {
            let mut faults = Vec::new();
            if let Ok(channel) = DefinitionName::new(&error.name).or_else(|_| DefinitionName::new("code")) {
                let detail = error.to_string();
                faults.push(RouteFault { channel, pointer: String::new(), detail });
            }
            let explicit = Snapshot { units: Default::default(), ..snapshot.clone() };
            (explicit.effective_channels().unwrap_or_default(), faults)
        }
    }
}

/// The headers the access log shows: those asked for, without any that carries credentials.
fn logged_headers(inputs: &RouteInputs<'_>) -> Vec<HeaderName> {
    let masked = inputs.authenticators.headers_to_mask();
    let secret = |name: &str| masked.contains(name) || matches!(name, "cookie" | "proxy-authorization");
    inputs
        .http
        .access_log_headers
        .iter()
        .filter_map(|name| HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).ok())
        .filter(|name| !secret(name.as_str()))
        .collect()
}

fn builtin_entrance(
    inputs: &RouteInputs<'_>,
    observer: Arc<dyn EntranceObserver>,
    page: Builtin,
) -> Entrance {
    Entrance {
        kind: EntranceKind::Builtin(page),
        observer,
        allow_from: Vec::new(),
        security: None,
        rates: EntranceRates::default(),
        cells: Arc::clone(&inputs.ports.rates),
        limit: None,
        cors: None,
        max_body: 0,
        max_depth: 0,
        body_timeout: Duration::from_millis(inputs.http.body_timeout_ms),
        compression: compression(inputs.http),
    }
}

fn compression(http: &HttpSettings) -> CompressionPolicy {
    CompressionPolicy { enabled: http.compression, min_bytes: http.compression_min_bytes }
}

fn gauge(ports: &Ports, key: &str, limit: Option<u32>) -> Option<ConcurrencyLimit> {
    let limit = limit?;
    Some(ConcurrencyLimit { gauge: ports.concurrency.gauge(key)?, limit })
}

/// Compiles one channel.
struct Compiler<'a> {
    inputs: &'a RouteInputs<'a>,
    channel: &'a EffectiveChannel,
}

impl Compiler<'_> {
    fn compile(&self, source: &HttpEntrance) -> Option<(MethodSet, Entrance)> {
        let (name, definition) = (&self.channel.name, &self.channel.definition);
        let inputs = self.inputs;
        let (methods, kind) = match definition {
            ChannelDefinition::Rest(channel) => {
                let target = self.target(&channel.service);
                let methods = listed(&channel.methods, &target);
                let (format, transforms) = (channel.data_format, self.pipelines(&channel.transforms));
                (methods, EntranceKind::Rest { target, format, transforms })
            }
            ChannelDefinition::Http(channel) => {
                let target = self.target(&channel.service);
                let methods = listed(&channel.methods, &target);
                (methods, EntranceKind::Plain { target, transforms: self.pipelines(&channel.transforms) })
            }
            ChannelDefinition::Jsonrpc(channel) => {
                let rpc = self.jsonrpc(channel);
                let methods = match rpc.document {
                    Some(_) => vec![Method::GET, Method::POST],
                    None => vec![Method::POST],
                };
                (MethodSet::Listed(methods), EntranceKind::JsonRpc(rpc))
            }
            ChannelDefinition::Soap(channel) => self.soap(channel)?,
            ChannelDefinition::Passthrough(channel) => self.passthrough(channel),
            ChannelDefinition::Amqp(_) => return None,
        };
        let observed = ObservedEntrance {
            channel: name.as_str(),
            kind: definition.type_name(),
            service: None,
            message_log: source.message_log.as_ref(),
        };
        let credentials = source.security.as_ref().map(|name| inputs.snapshot.credentials_for(name));
        let security_rates: Vec<_> = credentials
            .iter()
            .flatten()
            .map(|(name, definition)| (name.as_str(), definition.rate_limit()))
            .collect();
        let body = source.max_body_bytes.unwrap_or(inputs.http.max_body_bytes);
        let entrance = Entrance {
            kind,
            observer: inputs.ports.observer.prepare(&observed),
            allow_from: source.allow_from.clone(),
            security: source.security.as_ref().and_then(|name| inputs.authenticators.find(name)),
            rates: EntranceRates::new((name.as_str(), &source.rate_limit), &security_rates),
            cells: Arc::clone(&inputs.ports.rates),
            limit: gauge(&inputs.ports, &format!("channel:{name}"), source.max_concurrency),
            cors: source.cors.as_ref().map(CorsRules::new),
            max_body: size(body.min(inputs.http.max_body_bytes_ceiling)),
            max_depth: usize::from(inputs.http.max_depth),
            body_timeout: Duration::from_millis(inputs.http.body_timeout_ms),
            compression: compression(inputs.http),
        };
        Some((methods, entrance))
    }

    fn pipelines(&self, transforms: &Transforms) -> Pipelines {
        Pipelines::new(transforms, self.inputs.services, usize::from(self.inputs.http.max_depth))
    }

    fn passthrough(&self, channel: &PassthroughChannel) -> (MethodSet, EntranceKind) {
        let (inputs, http) = (self.inputs, self.inputs.http);
        let max_body = channel.entrance.max_body_bytes.unwrap_or(http.max_body_bytes);
        let limits = PassthroughLimits {
            deadline: Duration::from_millis(channel.entrance.deadline_ms.unwrap_or(http.deadline_ms)),
            max_body: size(max_body.min(http.max_body_bytes_ceiling)),
            body_timeout: Duration::from_millis(http.body_timeout_ms),
            max_depth: usize::from(http.max_depth),
        };
        let target = |service: &ServiceName| self.target(service);
        let compiled = Passthrough::new(channel, &inputs.snapshot, inputs.services, &limits, target);
        (passthrough::methods(&channel.methods), EntranceKind::Passthrough(Box::new(compiled)))
    }

    fn soap(&self, channel: &SoapChannel) -> Option<(MethodSet, EntranceKind)> {
        let security = channel.entrance.security.as_ref();
        let security = security.and_then(|name| self.inputs.authenticators.find(name));
        let reads = security.is_some_and(|security| security.reads_messages());
        let soap = Soap::new(&self.inputs.snapshot, channel, reads, |service| self.target(service)).ok()?;
        let methods = if soap.describes() { vec![Method::GET, Method::POST] } else { vec![Method::POST] };
        Some((MethodSet::Listed(methods), EntranceKind::Soap(Arc::new(soap))))
    }

    fn amqp(&self, settings: &AmqpChannel) -> Option<PlannedAmqp> {
        let http = self.inputs.http;
        let body = settings.max_body_bytes.unwrap_or(http.max_body_bytes);
        let work = Work {
            target: self.target(&settings.service),
            max_body: size(body.min(http.max_body_bytes_ceiling)),
            max_depth: usize::from(http.max_depth),
        };
        let connection = self.inputs.services.outgoing(settings.connection.as_str());
        PlannedAmqp::new(self.channel.name.to_shared(), settings, connection, work)
    }

    fn jsonrpc(&self, channel: &JsonRpcChannel) -> JsonRpc {
        let methods = &channel.methods;
        let methods = methods.iter().map(|(method, service)| (method.clone(), self.target(service)));
        let document = channel.openrpc.then(|| {
            let (snapshot, title) = (Arc::clone(&self.inputs.snapshot), self.inputs.ports.status.title());
            let (name, channel) = (self.channel.name.clone(), channel.clone());
            Document::new(move || openrpc::document(&snapshot, &title, name.as_str(), &channel))
        });
        JsonRpc { methods: methods.collect(), max_batch: size(u64::from(channel.max_batch)), document }
    }

    fn target(&self, service: &ServiceName) -> Target {
        let (inputs, channel) = (self.inputs, self.channel);
        let kind = channel.definition.type_name();
        let settings = inputs.snapshot.service_settings(service);
        let loaded = inputs.services.find(service.as_str());
        let declared = loaded.as_ref().and_then(|service| service.description().deadline_ms);
        // What the operator says about the service overrides its code; the caller's patience bounds both.
        let own = settings.deadline_ms.or(declared);
        let deadline = match (channel.definition.deadline_ms(), own) {
            (Some(channel), Some(service)) => channel.min(service),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => inputs.http.deadline_ms,
        };
        Target {
            info: Arc::new(ChannelInfo { name: channel.name.to_shared(), kind, service: service.clone() }),
            service: loaded,
            active: settings.active,
            deadline: Duration::from_millis(deadline),
            limit: gauge(&inputs.ports, &format!("service:{service}"), settings.max_concurrency),
            blame: Arc::clone(&inputs.ports.blame),
            observer: inputs.ports.observer.prepare(&ObservedEntrance {
                channel: channel.name.as_str(),
                kind,
                service: Some(service),
                message_log: channel.definition.message_log(),
            }),
        }
    }
}

/// The channel's methods, or those its service handles, or all.
fn listed(methods: &[String], target: &Target) -> MethodSet {
    let service = target.description().map(|description| description.methods.as_slice()).unwrap_or_default();
    MethodSet::of(if methods.is_empty() { service } else { methods })
}
