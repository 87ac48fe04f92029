//! What must be told to a running HAProxy so that it has the servers it should: a comparison of two states,
//! made anew every time, so that nothing depends on what was told before.

use std::collections::BTreeMap;

use crosstie_model::names::UnitName;

use crate::member::{Place, Pool};
use crate::render::{BACKEND, weight};
use crate::runtime::RunningServer;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a server known; it is checked and gets traffic from then on.
    Add(UnitName, Place),
    /// A runtime command that must answer nothing.
    Order(String),
    /// Take a server out. Fails while requests are under way, and is then tried again.
    Delete(String),
}

/// The steps from `running`, the servers of `backend`, to `wanted`, servers that join first.
#[must_use]
pub fn steps(backend: &str, wanted: &Pool, running: &BTreeMap<String, RunningServer>) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, place) in wanted {
        let Some(server) = running.get(name.as_str()) else {
            steps.push(Step::Add(name.clone(), *place));
            continue;
        };
        if server.address != place.address {
            let (ip, port) = (place.address.ip(), place.address.port());
            steps.push(Step::Order(format!("set server {backend}/{name} addr {ip} port {port}")));
        }
        if server.weight != weight(place) {
            steps.push(Step::Order(format!("set server {backend}/{name} weight {}", weight(place))));
        }
        if server.maintenance {
            steps.extend(open(backend, name.as_str()).map(Step::Order));
        }
    }
    for (name, server) in running {
        if wanted.contains_key(name.as_str()) {
            continue;
        }
        if !server.maintenance {
            steps.push(Step::Order(format!("set server {backend}/{name} state maint")));
        }
        steps.push(Step::Delete(name.clone()));
    }
    steps
}

/// The commands that let a server get traffic: only where it is checked there are checks to begin with.
pub fn open(backend: &str, name: &str) -> impl Iterator<Item = String> {
    let checks = (backend == BACKEND).then(|| format!("enable health {backend}/{name}"));
    checks.into_iter().chain(std::iter::once(format!("set server {backend}/{name} state ready")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Share;
    use crate::render::FALLBACK;

    fn place(address: &str, share: Share) -> Place {
        Place { address: address.parse().unwrap(), share }
    }

    fn pool(entries: &[(&str, Place)]) -> Pool {
        entries.iter().map(|(name, place)| (UnitName::new(name).unwrap(), *place)).collect()
    }

    fn running(entries: &[(&str, &str, u32, bool)]) -> BTreeMap<String, RunningServer> {
        let server = |(name, address, weight, maintenance): &(&str, &str, u32, bool)| {
            let address = address.parse().unwrap();
            ((*name).to_owned(), RunningServer { address, weight: *weight, maintenance: *maintenance })
        };
        entries.iter().map(server).collect()
    }

    #[test]
    fn nothing_is_told_to_one_that_has_what_it_should() {
        let wanted =
            pool(&[("a", place("127.0.0.1:1", Share::Full)), ("b", place("127.0.0.1:2", Share::Nothing))]);
        let has = running(&[("a", "127.0.0.1:1", 100, false), ("b", "127.0.0.1:2", 0, false)]);
        assert_eq!(steps(BACKEND, &wanted, &has), []);
    }

    #[test]
    fn servers_join_drain_move_and_leave() {
        let wanted = pool(&[
            ("drains", place("127.0.0.1:1", Share::Nothing)),
            ("joins", place("127.0.0.1:2", Share::Full)),
            ("moved", place("127.0.0.3:4", Share::Full)),
            ("returns", place("127.0.0.1:5", Share::Full)),
        ]);
        let has = running(&[
            ("drains", "127.0.0.1:1", 100, false),
            ("gone", "127.0.0.1:6", 100, false),
            ("going", "127.0.0.1:7", 100, true),
            ("moved", "127.0.0.1:3", 100, false),
            ("returns", "127.0.0.1:5", 100, true),
        ]);
        let order = |text: &str| Step::Order(text.to_owned());
        assert_eq!(
            steps(BACKEND, &wanted, &has),
            [
                order("set server crosstie/drains weight 0"),
                Step::Add(UnitName::new("joins").unwrap(), place("127.0.0.1:2", Share::Full)),
                order("set server crosstie/moved addr 127.0.0.3 port 4"),
                order("enable health crosstie/returns"),
                order("set server crosstie/returns state ready"),
                Step::Delete("going".into()),
                order("set server crosstie/gone state maint"),
                Step::Delete("gone".into()),
            ]
        );
    }

    #[test]
    fn where_nothing_is_checked_no_checks_are_begun() {
        let wanted = pool(&[("returns", place("127.0.0.1:5", Share::Full))]);
        let has = running(&[("returns", "127.0.0.1:5", 100, true)]);
        let ready = Step::Order("set server crosstie-fallback/returns state ready".into());
        assert_eq!(steps(FALLBACK, &wanted, &has), [ready]);
    }
}
