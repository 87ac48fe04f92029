//! Which outgoing takes a request: by header field, by a value in its body, by chance.

use std::collections::BTreeSet;

use bytes::Bytes;
use crosstie_model::definition::{PassthroughChannel, PointerCondition, Route as RouteDefinition};
use crosstie_model::{Fault, TraceContext};
use crosstie_xml::xpath::LocationPath;
use crosstie_xml::{Document, Limits, decode};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::forward::Forward;
use super::pointers::Pointers;
use crate::body::media::charset;

/// The outgoings of a channel, and who takes what.
pub(super) struct Router {
    /// In the order in which they are tried.
    routes: Vec<Route>,
    pointers: Pointers,
    otherwise: Forward,
}

/// The way that a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The route of that number.
    Route(usize),
    /// None of them.
    Otherwise,
}

/// One of several ways, and when it is taken.
pub(super) struct Route {
    forward: Forward,
    header: Option<(HeaderName, BTreeSet<String>)>,
    /// The place of its value among those of all pointers.
    pointer: Option<(usize, PointerCondition)>,
    xpath: Option<(LocationPath, BTreeSet<String>)>,
    /// Of `u64::MAX`, and the field that chooses.
    share: Option<(u64, Option<HeaderName>)>,
}

/// A body, looked at once for all routes.
struct Looked<'a> {
    pointers: &'a Pointers,
    json: Option<Option<Vec<Option<Value>>>>,
    xml: Option<Option<Document<'static>>>,
}

impl Looked<'_> {
    fn json(&mut self, body: &Bytes, place: usize) -> Option<&Value> {
        self.json.get_or_insert_with(|| self.pointers.values(body)).as_ref()?.get(place)?.as_ref()
    }

    fn xml(&mut self, headers: &HeaderMap, body: &Bytes) -> Option<&Document<'static>> {
        let read = || {
            let text = decode(body, charset(headers.get(CONTENT_TYPE)).as_deref()).ok()?;
            let limits = Limits { bytes: body.len().saturating_mul(2).max(1), ..Limits::default() };
            Document::parse(text.into_owned(), &limits).ok()
        };
        self.xml.get_or_insert_with(read).as_ref()
    }
}

impl Route {
    /// The way that `definition` describes, to `forward`.
    pub(super) fn new(definition: &RouteDefinition, forward: Forward) -> Self {
        let name = |text: &str| HeaderName::from_bytes(text.as_bytes()).ok();
        Self {
            forward,
            header: definition
                .header
                .as_ref()
                .and_then(|header| Some((name(&header.name)?, header.one_of.clone()))),
            pointer: definition.pointer.clone().map(|condition| (0, condition)),
            xpath: definition.xpath.as_ref().and_then(|xpath| {
                let path = LocationPath::parse(&xpath.at, &xpath.namespaces).ok()?;
                Some((path, xpath.one_of.clone()))
            }),
            share: definition
                .percent
                .map(|percent| (share_of(percent), definition.percent_by.as_deref().and_then(name))),
        }
    }

    fn reads_bodies(&self) -> bool {
        self.pointer.is_some() || self.xpath.is_some()
    }

    fn takes(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
        looked: &mut Looked<'_>,
        trace: &TraceContext,
    ) -> bool {
        self.has_header(headers)
            && self.has_pointer(body, looked)
            && self.has_xpath(headers, body, looked)
            && self.has_luck(headers, trace)
    }

    fn has_header(&self, headers: &HeaderMap) -> bool {
        let Some((name, one_of)) = &self.header else { return true };
        let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| one_of.is_empty() || one_of.contains(value.trim()))
    }

    fn has_pointer(&self, body: &Bytes, looked: &mut Looked<'_>) -> bool {
        let Some((place, condition)) = &self.pointer else { return true };
        looked.json(body, *place).is_some_and(|found| {
            condition.one_of.is_empty() || condition.one_of.iter().any(|one| same(one, found))
        })
    }

    fn has_xpath(&self, headers: &HeaderMap, body: &Bytes, looked: &mut Looked<'_>) -> bool {
        let Some((path, one_of)) = &self.xpath else { return true };
        let Some(document) = looked.xml(headers, body) else { return false };
        path.values(document).any(|value| one_of.is_empty() || one_of.contains(value.trim()))
    }

    fn has_luck(&self, headers: &HeaderMap, trace: &TraceContext) -> bool {
        let Some((share, by)) = &self.share else { return true };
        let chosen = by
            .as_ref()
            .and_then(|name| headers.get(name))
            .map_or_else(|| hash(trace.cid.as_bytes()), |value| hash(value.as_bytes()));
        *share == u64::MAX || chosen < *share
    }
}

impl Router {
    /// Routes in the order in which they are tried, and where the rest goes.
    pub(super) fn new(mut routes: Vec<Route>, otherwise: Forward) -> Self {
        let mut pointers = Pointers::default();
        for (place, condition) in routes.iter_mut().filter_map(|route| route.pointer.as_mut()) {
            *place = pointers.add(&condition.at);
        }
        Self { routes, pointers, otherwise }
    }

    /// Whether bodies have to be whole for it.
    pub(super) fn reads_bodies(&self) -> bool {
        self.routes.iter().any(Route::reads_bodies)
    }

    /// Who takes a request. `body` is without content coding, and empty where no route looks at it.
    pub(super) fn choose(&self, headers: &HeaderMap, body: &Bytes, trace: &TraceContext) -> Way {
        let mut looked = Looked { pointers: &self.pointers, json: None, xml: None };
        let found = self.routes.iter().position(|route| route.takes(headers, body, &mut looked, trace));
        found.map_or(Way::Otherwise, Way::Route)
    }

    /// Where a way leads.
    pub(super) fn forward(&self, way: Way) -> &Forward {
        match way {
            Way::Route(number) => self.routes.get(number).map_or(&self.otherwise, |route| &route.forward),
            Way::Otherwise => &self.otherwise,
        }
    }
}

/// What is wrong with a channel's routes that only their compilers can tell.
pub(super) fn faults(channel: &PassthroughChannel) -> Vec<Fault> {
    let routes = channel.routes.iter().enumerate();
    routes
        .filter_map(|(index, route)| {
            let xpath = route.xpath.as_ref()?;
            let error = LocationPath::parse(&xpath.at, &xpath.namespaces).err()?;
            Some(Fault { pointer: format!("/routes/{index}/xpath/at"), detail: error.to_string() })
        })
        .collect()
}

/// Numbers are the same when their values are.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.to_bits() == other.to_bits(),
        _ => one == other,
    }
}

/// How far up chances reach for so many of 100.
fn share_of(percent: f64) -> u64 {
    if percent >= 100.0 {
        return u64::MAX;
    }
    // As text, since no number becomes a whole one without a cast: six digits of it are fine enough.
    let millionths = format!("{:.0}", percent.max(0.0) * 1_000_000.0);
    u64::MAX / 100_000_000 * millionths.parse::<u64>().unwrap_or_default()
}

/// FNV-1a with a last mix, so that short values spread: the same on every server and in every release.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::definition::ChannelDefinition;
    use crosstie_model::{Definition, DefinitionBody, DefinitionId, DefinitionKind};
    use serde_json::json;

    use crate::passthrough::forward::Place;
    use crosstie_model::outgoing::{OutgoingError, Trouble};

    /// A router whose ways are told apart by their queries: the names of their outgoings.
    fn router(routes: Value) -> Router {
        let body = json!({"type": "passthrough", "path": "/a", "outgoing": "rest", "routes": routes});
        let id = DefinitionId { kind: DefinitionKind::Channel, name: "c".parse().unwrap() };
        let body = Definition::from_value(id, body).unwrap().body;
        let DefinitionBody::Channel(ChannelDefinition::Passthrough(channel)) = body else { panic!() };
        assert_eq!(faults(&channel), []);
        let forward = |name: &str| Forward {
            outgoing: Err(OutgoingError::new(Trouble::Closed, "")),
            place: Place::Own,
            query: name.to_owned(),
        };
        let routes = channel.routes.iter().map(|route| Route::new(route, forward(route.outgoing.as_str())));
        Router::new(routes.collect(), forward("rest"))
    }

    fn chosen(router: &Router, fields: &[(&'static str, &'static str)], body: &str) -> String {
        let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers = HeaderMap::from_iter(headers.collect::<Vec<(HeaderName, http::HeaderValue)>>());
        let body = Bytes::copy_from_slice(body.as_bytes());
        router.forward(router.choose(&headers, &body, &TraceContext::new_root())).query.clone()
    }

    #[test]
    fn the_first_route_whose_conditions_all_hold_takes_a_request() {
        let router = router(json!([
            {"outgoing": "v2", "header": {"name": "X-Version", "one_of": ["2", "2.1"]}},
            {"outgoing": "both", "header": {"name": "x-a"}, "pointer": {"at": "/b"}},
            {"outgoing": "poland", "pointer": {"at": "/customer/country", "one_of": ["PL", 48, null]}},
            {"outgoing": "xml", "xpath": {"at": "/b:order/@kind", "namespaces": {"b": "urn:b"}, "one_of": ["gift"]}},
        ]));
        assert!(router.reads_bodies());
        let json = r#"{"customer": {"country": "PL"}, "b": 1}"#;
        for (fields, body, expected) in [
            (&[][..], "", "rest"),
            (&[("x-version", " 2.1 ")], json, "v2"),
            (&[("x-version", "3")], json, "poland"),
            (&[("x-a", "")], json, "both"),
            (&[("x-a", "")], "{}", "rest"),
            (&[], json, "poland"),
            (&[], r#"{"customer": {"country": 48.0}}"#, "poland"),
            (&[], r#"{"customer": {"country": null}}"#, "poland"),
            (&[], r#"{"customer": {"country": "DE"}}"#, "rest"),
            (&[], "{broken", "rest"),
            (&[], "<b:order xmlns:b='urn:b' kind=' gift '/>", "xml"),
            (&[], "<order kind='gift'/>", "rest"),
            (&[], "<!DOCTYPE a [<!ENTITY b 'gift'>]><b:order xmlns:b='urn:b' kind='&b;'/>", "rest"),
        ] {
            assert_eq!(chosen(&router, fields, body), expected, "{fields:?} {body}");
        }
    }

    #[test]
    fn a_share_of_requests_is_what_was_asked_for() {
        for percent in [0.0, 0.5, 10.0, 50.0, 99.9, 100.0] {
            let router = router(json!([{"outgoing": "canary", "percent": percent}]));
            let taken = (0..20_000).filter(|_| chosen(&router, &[], "") == "canary").count();
            let share = f64::from(u32::try_from(taken).unwrap()) / 200.0;
            assert!((share - percent).abs() < 2.0, "{share} of {percent}");
            assert!(percent > 0.0 || taken == 0);
            assert!(percent < 100.0 || taken == 20_000);
        }
    }

    #[test]
    fn requests_of_one_trace_or_with_one_value_go_the_same_way() {
        let by_trace = router(json!([{"outgoing": "canary", "percent": 50}]));
        let trace = TraceContext::new_root();
        let again = || by_trace.choose(&HeaderMap::new(), &Bytes::new(), &trace);
        let first = again();
        assert!((0..100).all(|_| again() == first));
        let by_field = router(json!([{"outgoing": "canary", "percent": 50, "percent_by": "X-Customer"}]));
        let of = |customer: &'static str| chosen(&by_field, &[("x-customer", customer)], "");
        let customers = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];
        let ways: BTreeSet<String> = customers.iter().map(|customer| of(customer)).collect();
        assert_eq!(ways.len(), 2, "customers go different ways");
        assert!(customers.iter().all(|customer| of(customer) == of(customer)));
        // The same in every release: what is sticky stays so over an upgrade.
        assert_eq!(hash(b"1"), 0x7c38_32dd_e020_d3d6);
    }
}
