//! Which methods a path answers, and what it says about the others (RFC 9110, section 9).
//!
//! HEAD is answered by GET unless a channel lists HEAD itself; the service then sees GET. OPTIONS is answered
//! by the server unless a channel lists it. CONNECT and TRACE never reach a service.

use std::sync::Arc;

use http::Method;

use crate::entrance::Entrance;
use crate::pattern::{Captures, PathTrie, Segments};

/// The methods of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MethodSet {
    /// Every method a service may get.
    All,
    /// These.
    Listed(Vec<Method>),
}

/// What a channel that takes all methods is said to take.
pub(crate) const STANDARD: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// The methods to show for a list: the list, or for an empty one all but HEAD, which says nothing of its own.
pub(crate) fn method_names(listed: &[String]) -> Vec<String> {
    if !listed.is_empty() {
        return listed.to_vec();
    }
    STANDARD.iter().filter(|name| **name != "HEAD").map(|name| (*name).to_owned()).collect()
}

impl MethodSet {
    /// The set of `names`; all when there are none.
    pub(crate) fn of(names: &[String]) -> Self {
        let methods: Vec<_> =
            names.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok()).collect();
        if methods.is_empty() { Self::All } else { Self::Listed(methods) }
    }

    fn takes(&self, method: &Method) -> Option<Taken> {
        match self {
            Self::All => match *method {
                Method::OPTIONS | Method::CONNECT | Method::TRACE => None,
                Method::HEAD => Some(Taken::HeadAsGet),
                _ => Some(Taken::AsIs),
            },
            Self::Listed(methods) if methods.contains(method) => Some(Taken::AsIs),
            Self::Listed(methods) if *method == Method::HEAD && methods.contains(&Method::GET) => {
                Some(Taken::HeadAsGet)
            }
            Self::Listed(_) => None,
        }
    }

    fn list(&self, into: &mut Vec<Method>) {
        let mut add = |method: Method| {
            if !into.contains(&method) {
                into.push(method);
            }
        };
        match self {
            Self::All => STANDARD.iter().filter_map(|name| name.parse().ok()).for_each(&mut add),
            Self::Listed(methods) => {
                for method in methods {
                    add(method.clone());
                    if *method == Method::GET {
                        add(Method::HEAD);
                    }
                }
            }
        }
    }
}

/// How a channel takes a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    AsIs,
    HeadAsGet,
}

/// The channels whose patterns have one shape.
#[derive(Default)]
pub(crate) struct Leaf {
    entries: Vec<Entry>,
}

struct Entry {
    methods: MethodSet,
    names: Arc<[Arc<str>]>,
    entrance: Arc<Entrance>,
}

impl Leaf {
    pub(crate) fn add(&mut self, methods: MethodSet, names: Arc<[Arc<str>]>, entrance: Arc<Entrance>) {
        self.entries.push(Entry { methods, names, entrance });
    }

    fn entry(&self, method: &Method) -> Option<(&Entry, Taken)> {
        // Listed methods before a channel that takes all, whatever the order of definition.
        let listed = self.entries.iter().filter(|entry| entry.methods != MethodSet::All);
        let open = self.entries.iter().filter(|entry| entry.methods == MethodSet::All);
        let taken = |exact: bool| {
            let mut entries = listed.clone().chain(open.clone());
            entries.find_map(|entry| {
                let taken = entry.methods.takes(method)?;
                (!exact || taken == Taken::AsIs).then_some((entry, taken))
            })
        };
        // A channel that lists HEAD goes before one whose GET would stand in for it.
        taken(true).or_else(|| taken(false))
    }
}

/// A request's way in.
pub(crate) struct Way {
    pub(crate) entrance: Arc<Entrance>,
    pub(crate) taken: Taken,
    pub(crate) params: Vec<(Arc<str>, String)>,
}

/// Finds the most specific channel that matches the path and takes the method.
pub(crate) fn find(trie: &PathTrie<Leaf>, method: &Method, segments: &Segments<'_>) -> Option<Way> {
    let ((entry, taken), captures): ((&Entry, Taken), Captures) =
        trie.find(segments, |leaf| leaf.entry(method))?;
    let params = captures.values(&entry.names, segments);
    Some(Way { entrance: Arc::clone(&entry.entrance), taken, params })
}

/// The methods that any channel at this path takes, for Allow; `None` when there is no channel at all.
pub(crate) fn allowed(trie: &PathTrie<Leaf>, segments: &Segments<'_>) -> Option<Vec<Method>> {
    let mut methods: Option<Vec<Method>> = None;
    trie.find(segments, |leaf| -> Option<()> {
        let methods = methods.get_or_insert_with(Vec::new);
        leaf.entries.iter().for_each(|entry| entry.methods.list(methods));
        None
    });
    let mut methods = methods?;
    if !methods.contains(&Method::OPTIONS) {
        methods.push(Method::OPTIONS);
    }
    Some(methods)
}
