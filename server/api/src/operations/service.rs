//! Services: which there are, calling one, lifting a quarantine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::message::{ChannelInfo, Message, Payload, Principal, Reply};
use crosstie_model::{
    Digest, Event, Failure, FailureKind, Origin, ServiceName, Snapshot, TraceContext, UnitName,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{OperationError, Operations};
use crate::access::Caller;
use crate::host::Quarantined;

/// How long a caller waits for a service that does not say how long it may take beyond the server's default.
const MAX_INVOKE: Duration = Duration::from_secs(600);

/// A service as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// The unit that owns it.
    pub unit: UnitName,
    /// Which version of the unit.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// Its docstring.
    pub doc: String,
    /// Where it is defined: module and class.
    pub class: String,
    /// Whether its handler is `async def`.
    pub is_async: bool,
    /// The HTTP methods it handles; all when empty.
    pub methods: Vec<String>,
    /// Whether its settings let it answer.
    pub active: bool,
    /// How long one call may take, in milliseconds, when it or its settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Its quarantine on the answering server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<Quarantined>,
    /// The channels that lead to it.
    pub channels: Vec<ServiceChannel>,
    /// JSON Schema of its declared input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// JSON Schema of its declared output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// A channel that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServiceChannel {
    /// The channel's name.
    pub name: String,
    /// Its type: `rest`, `http`, `jsonrpc`.
    pub r#type: String,
    /// Its path.
    pub path: String,
}

/// A call of a service through the management API.
#[derive(Debug)]
pub struct Invocation {
    /// The service.
    pub service: ServiceName,
    /// What it is given.
    pub payload: Payload,
    /// The same as it came.
    pub raw: Bytes,
    /// Correlation and tracing.
    pub trace: TraceContext,
}

impl Operations {
    /// All services of active deployments, by name.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn services(&self) -> Result<Vec<ServiceView>, OperationError> {
        let snapshot = self.odb().snapshot().await?;
        Ok(views(&snapshot, &self.host().quarantined()))
    }

    /// One service.
    ///
    /// # Errors
    /// No active deployment defines it.
    pub async fn service(&self, name: &ServiceName) -> Result<ServiceView, OperationError> {
        let all = self.services().await?;
        all.into_iter().find(|view| view.name == *name).ok_or_else(|| no_service(name))
    }

    /// Calls a service in this process, as another service would.
    ///
    /// # Errors
    /// [`OperationError::Service`] with the service's own failure; no such service is loaded.
    pub async fn invoke(&self, caller: &Caller, call: Invocation) -> Result<Reply, OperationError> {
        let Invocation { service: name, payload, raw, trace } = call;
        let settings = self.odb().snapshot().await?.service_settings(&name);
        let service = self.host().services().find(name.as_str()).ok_or_else(|| no_service(&name))?;
        if !settings.active {
            let failure = Failure::new(FailureKind::Unavailable, Origin::Service)
                .with_text(format!("the service {name} is not active"));
            return Err(OperationError::Service(failure));
        }
        if self.host().quarantined().iter().any(|quarantined| quarantined.name == name.as_str()) {
            let failure = Failure::new(FailureKind::Unavailable, Origin::Service)
                .with_text(format!("the service {name} is quarantined"));
            return Err(OperationError::Service(failure));
        }
        let default = self.host().settings().http.deadline_ms;
        let limit = settings.deadline_ms.or(service.description().deadline_ms).unwrap_or(default);
        let limit = Duration::from_millis(limit).min(MAX_INVOKE);
        let message = Message {
            trace,
            channel: Arc::new(ChannelInfo { name: "invoke".into(), kind: "invoke", service: name }),
            payload,
            raw,
            http: None,
            soap: None,
            amqp: None,
            principal: Some(Arc::new(Principal::new("management", "management").named(caller.name.as_str()))),
            deadline: Instant::now() + limit,
            depth: 0,
        };
        service.invoke(message).await.map_err(OperationError::Service)
    }

    /// Lifts the quarantine of a service (or of a unit whose loading was quarantined) on this server.
    ///
    /// # Errors
    /// It is not quarantined.
    pub fn release(&self, caller: &Caller, service: &ServiceName) -> Result<(), OperationError> {
        if !self.host().release(service) {
            return Err(OperationError::NotFound(format!("quarantine of {service}")));
        }
        self.host().publish(Event::QuarantineReleased { service: service.clone() });
        tracing::info!(author = caller.name, %service, "quarantine lifted");
        Ok(())
    }
}

fn no_service(name: &ServiceName) -> OperationError {
    OperationError::NotFound(format!("service {name}"))
}

fn views(snapshot: &Snapshot, quarantined: &[Quarantined]) -> Vec<ServiceView> {
    let channels = snapshot.effective_channels().unwrap_or_default();
    let mut views: Vec<_> = snapshot
        .services()
        .filter_map(|(unit, service)| {
            let settings = snapshot.service_settings(&service.name);
            let leading = channels.iter().filter(|c| c.definition.services().contains(&service.name));
            Some(ServiceView {
                name: service.name.clone(),
                unit: unit.clone(),
                digest: snapshot.units.get(unit)?.digest,
                doc: service.doc.clone(),
                class: service.class.clone(),
                is_async: service.is_async,
                methods: service.methods.clone(),
                active: settings.active,
                deadline_ms: settings.deadline_ms.or(service.deadline_ms),
                quarantined: quarantined.iter().find(|q| q.name == service.name.as_str()).cloned(),
                channels: leading
                    .map(|channel| ServiceChannel {
                        name: channel.name.to_string(),
                        r#type: channel.definition.type_name().to_owned(),
                        path: channel.definition.place().to_owned(),
                    })
                    .collect(),
                input: service.input.clone(),
                output: service.output.clone(),
            })
        })
        .collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}
