//! Checks of a whole state: what would be wrong with the next snapshot.
//!
//! Pure functions over snapshots, called before every change of definitions or deployments. A change is
//! refused for what it breaks or touches, never for what was broken elsewhere before it: otherwise one stale
//! fault (after `require_security` was turned on, say) would forbid every step of mending it. Costs
//! milliseconds for thousands of channels; runs on the control thread.

use std::collections::{BTreeMap, BTreeSet};

use crosstie_channels::check;
use crosstie_model::definition::{
    DefinitionId, DefinitionKind, DefinitionName, SecurityDefinition, SecurityUse,
};
use crosstie_model::settings::ServerSettings;
use crosstie_model::snapshot::{EffectiveChannel, code_channel};
use crosstie_model::{Definition, DefinitionBody, ServiceName, Snapshot, UnitName};
use crosstie_security::credentials;

/// What a fault is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A definition.
    Definition(DefinitionId),
    /// The active deployment of a unit.
    Unit(UnitName),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Definition(id) => write!(f, "{id}"),
            Self::Unit(unit) => write!(f, "unit {unit}"),
        }
    }
}

/// One thing that is wrong with a state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateFault {
    /// What it is about.
    pub subject: Subject,
    /// Which field, as a JSON Pointer into the definition; empty for all of it.
    pub pointer: String,
    /// What is wrong, for a person.
    pub detail: String,
    /// The other side of a clash of two; it has the same fault, seen from there.
    pub(crate) counterpart: Option<Subject>,
}

impl StateFault {
    /// A fault of `subject`.
    #[must_use]
    pub fn new(subject: Subject, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { subject, pointer: pointer.into(), detail: detail.into(), counterpart: None }
    }
}

impl std::fmt::Display for StateFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.subject, self.detail)
    }
}

/// What the settings of this server demand of every state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether every channel needs a security definition.
    pub require_security: bool,
    /// Paths the server answers itself.
    pub reserved_paths: Vec<String>,
}

impl Rules {
    /// The rules that `settings` make.
    #[must_use]
    pub fn of(settings: &ServerSettings) -> Self {
        Self {
            require_security: settings.security.require_security,
            reserved_paths: check::reserved_paths(&settings.http, &settings.telemetry.metrics_path),
        }
    }
}

/// What is wrong with `after` that was not wrong with `before`, or concerns what the change touches.
#[must_use]
pub fn faults_of_change(
    before: &Snapshot,
    after: &Snapshot,
    touched: &BTreeSet<Subject>,
    rules: &Rules,
) -> Vec<StateFault> {
    let found = faults_of_state(after, rules);
    if found.is_empty() {
        return found;
    }
    let known: BTreeSet<StateFault> = faults_of_state(before, rules).into_iter().collect();
    found
        .into_iter()
        .filter(|fault| touched.contains(&fault.subject) || !known.contains(fault))
        // A clash is told once, from the side of what is being changed.
        .filter(|fault| {
            touched.contains(&fault.subject)
                || !fault.counterpart.as_ref().is_some_and(|c| touched.contains(c))
        })
        .collect()
}

/// Everything that is wrong with `snapshot`, in a stable order.
#[must_use]
pub fn faults_of_state(snapshot: &Snapshot, rules: &Rules) -> Vec<StateFault> {
    let mut faults = BTreeSet::new();
    check_ownership(snapshot, &mut faults);
    check_definitions(snapshot, &mut faults);
    check_channels(snapshot, rules, &mut faults);
    faults.into_iter().collect()
}

/// A service belongs to one unit.
fn check_ownership(snapshot: &Snapshot, faults: &mut BTreeSet<StateFault>) {
    let mut owners: BTreeMap<&ServiceName, Vec<&UnitName>> = BTreeMap::new();
    for (unit, service) in snapshot.services() {
        owners.entry(&service.name).or_default().push(unit);
    }
    for (service, units) in owners.into_iter().filter(|(_, units)| units.len() > 1) {
        for unit in &units {
            let other = units.iter().find(|other| other != &unit);
            let detail = match other {
                Some(other) => format!("the service {service} belongs to the unit {other}"),
                None => format!("the service {service} is defined twice"),
            };
            let mut fault = StateFault::new(Subject::Unit((*unit).clone()), "", detail);
            fault.counterpart = other.map(|other| Subject::Unit((*other).clone()));
            faults.insert(fault);
        }
    }
}

/// Names of service settings, and what definitions refer to. Active channels are left to
/// [`check_channels`], which says more.
fn check_definitions(snapshot: &Snapshot, faults: &mut BTreeSet<StateFault>) {
    for (id, body) in &snapshot.definitions {
        let mut fault = |pointer: &str, detail: String| {
            faults.insert(StateFault::new(Subject::Definition(id.clone()), pointer, detail));
        };
        if id.kind == DefinitionKind::Service
            && let Err(error) = ServiceName::new(id.name.as_str())
        {
            fault("", format!("no service can have this name: {error}"));
        }
        if matches!(body, DefinitionBody::Channel(channel) if channel.is_active()) {
            continue;
        }
        let definition = Definition { id: id.clone(), body: body.clone() };
        for (pointer, needed) in definition.references() {
            match snapshot.definitions.get(&needed) {
                None => fault(&pointer, unknown_definition(&needed)),
                Some(found) if id.kind == DefinitionKind::Outgoing => {
                    if let Some(detail) = unfit_credentials(&pointer, &needed, found) {
                        fault(&pointer, detail);
                    }
                }
                Some(found) if id.kind == DefinitionKind::Security => {
                    if let Some(detail) = unfit_member(&needed, found) {
                        fault(&pointer, detail);
                    }
                }
                Some(_) => {}
            }
        }
        if let DefinitionBody::Wsdl(wsdl) = body {
            for found in crosstie_channels::soap::wsdl_faults(wsdl) {
                fault(&found.pointer, found.detail);
            }
        }
        if let DefinitionBody::Stylesheet(stylesheet) = body {
            for found in crosstie_xslt::faults(stylesheet) {
                fault(&found.pointer, found.detail);
            }
        }
        if let DefinitionBody::Security(security) = body {
            for found in credentials::faults_of(&id.name, security) {
                fault(&found.pointer, found.detail);
            }
        }
    }
}

/// Why a definition cannot be a member of a group.
fn unfit_member(id: &DefinitionId, found: &DefinitionBody) -> Option<String> {
    let DefinitionBody::Security(security) = found else { return None };
    match security {
        SecurityDefinition::Group(_) => Some(format!("{id} is a group itself")),
        other if other.used_by() == SecurityUse::Outgoings => {
            Some(format!("{id} is of type {}, which only outgoings can use", other.type_name()))
        }
        _ => None,
    }
}

/// Why an outgoing cannot present these credentials.
fn unfit_credentials(pointer: &str, id: &DefinitionId, found: &DefinitionBody) -> Option<String> {
    let DefinitionBody::Security(security) = found else { return None };
    let is_proxy = pointer == "/proxy/security";
    if is_proxy && !matches!(security, SecurityDefinition::BasicAuth(_)) {
        return Some(format!("{id} is of type {}; a proxy takes basic_auth", security.type_name()));
    }
    (security.used_by() == SecurityUse::Channels)
        .then(|| format!("{id} is of type {}, which only channels can use", security.type_name()))
}

/// Channels, explicit and in code: their declarations, their services, and whether they may open.
fn check_channels(snapshot: &Snapshot, rules: &Rules, faults: &mut BTreeSet<StateFault>) {
    if !check_declarations(snapshot, faults) {
        return;
    }
    let channels = match snapshot.effective_channels() {
        Ok(channels) => channels,
        Err(error) => {
            if let Some(unit) = snapshot.owner(error.service.as_str()) {
                faults.insert(StateFault::new(Subject::Unit(unit.clone()), "", error.to_string()));
            }
            return;
        }
    };
    let services: BTreeSet<&str> = snapshot.services().map(|(_, service)| service.name.as_str()).collect();
    let by_name: BTreeMap<&DefinitionName, &EffectiveChannel> =
        channels.iter().map(|channel| (&channel.name, channel)).collect();
    let fault = |channel: &EffectiveChannel, pointer: String, detail: String| {
        let detail = if channel.in_code { format!("its channel {}: {detail}", channel.name) } else { detail };
        StateFault::new(subject_of(snapshot, channel), pointer, detail)
    };
    for channel in &channels {
        for (pointer, service) in channel.definition.services_by_field() {
            if !services.contains(service.as_str()) {
                faults.insert(fault(channel, pointer, unknown_service(&service)));
            }
        }
    }
    let clashes = check::conflicts(&channels);
    for found in check::check_channels(snapshot, &channels, &rules.reserved_paths, rules.require_security) {
        let is_clash = |clash: &check::Conflict| {
            clash.second == found.channel && found.detail.contains(clash.first.as_str())
        };
        if found.pointer == "/path" && clashes.iter().any(is_clash) {
            continue;
        }
        if let Some(channel) = by_name.get(&found.channel) {
            faults.insert(fault(channel, found.pointer, found.detail));
        }
    }
    for clash in &clashes {
        let (Some(first), Some(second)) = (by_name.get(&clash.first), by_name.get(&clash.second)) else {
            continue;
        };
        for (mine, other) in [(first, second), (second, first)] {
            let mut found = fault(mine, "/path".to_owned(), clash_text(clash, mine, other));
            found.counterpart = Some(subject_of(snapshot, other));
            faults.insert(found);
        }
    }
}

/// What is told of a reference to a service that is not there.
pub(crate) fn unknown_service(service: &ServiceName) -> String {
    format!("leads to the service {service}, which no active deployment defines")
}

/// What is told of a reference to a definition that is not there.
pub(crate) fn unknown_definition(id: &DefinitionId) -> String {
    format!("there is no {id}")
}

fn clash_text(clash: &check::Conflict, mine: &EffectiveChannel, other: &EffectiveChannel) -> String {
    let methods = if clash.methods.is_empty() { "all methods".to_owned() } else { clash.methods.join(", ") };
    format!("{} is taken by the channel {} for {methods}", mine.definition.place(), other.name)
}

/// Every declaration in code that is no channel; says whether all are.
fn check_declarations(snapshot: &Snapshot, faults: &mut BTreeSet<StateFault>) -> bool {
    let mut valid = true;
    for (unit, service) in snapshot.services() {
        for declared in &service.channels {
            if let Err(error) = code_channel(&service.name, declared) {
                valid = false;
                faults.insert(StateFault::new(Subject::Unit(unit.clone()), "", error.to_string()));
            }
        }
    }
    valid
}

/// Who is to blame for a channel: the definition, or the unit whose code declares it.
fn subject_of(snapshot: &Snapshot, channel: &EffectiveChannel) -> Subject {
    let unit = if channel.in_code {
        channel.definition.services().first().and_then(|service| snapshot.owner(service.as_str())).cloned()
    } else {
        None
    };
    unit.map_or_else(
        || Subject::Definition(DefinitionId { kind: DefinitionKind::Channel, name: channel.name.clone() }),
        Subject::Unit,
    )
}
