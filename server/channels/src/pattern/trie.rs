//! The segment trie: finds the most specific pattern that matches a path and that the caller accepts.
//!
//! A depth-first walk tries a node's children from the most to the least specific, so the first match is the
//! best one. Each node is visited at most once per lookup; the cost is bounded by the number of nodes at the
//! path's depth, and for the usual tree it is one comparison per segment.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{ParamType, PathPattern, Segment, Segments};

/// Patterns and what lies at their ends.
#[derive(Debug)]
pub struct PathTrie<T> {
    root: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    /// Sorted by text.
    statics: Vec<(Box<str>, Node<T>)>,
    /// Sorted by type, most specific first. `Path` nodes have no children.
    params: Vec<(ParamType, Node<T>)>,
    leaf: Option<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { statics: Vec::new(), params: Vec::new(), leaf: None }
    }
}

/// Where a parameter's value stands in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capture {
    /// One segment.
    Segment(usize),
    /// All segments from this one on.
    From(usize),
}

/// The parameters' places in a matched path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures(SmallVec<[Capture; 6]>);

impl Captures {
    /// The parameters with their decoded values, in the pattern's order.
    #[must_use]
    pub fn values(&self, names: &[Arc<str>], segments: &Segments<'_>) -> Vec<(Arc<str>, String)> {
        names
            .iter()
            .zip(&self.0)
            .map(|(name, capture)| (Arc::clone(name), segments.value(*capture)))
            .collect()
    }
}

impl<T> Default for PathTrie<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> PathTrie<T> {
    /// The place for what lies at `pattern`; patterns of one shape share it.
    pub fn slot(&mut self, pattern: &PathPattern) -> &mut Option<T> {
        let mut node = &mut self.root;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Static(text) => child(&mut node.statics, text),
                Segment::Param { kind, .. } => child(&mut node.params, kind),
            };
        }
        &mut node.leaf
    }

    /// Finds the most specific match that `accept` takes. Matches it declines are passed over, so that a
    /// less specific pattern may answer; `accept` sees every match in order until then.
    pub fn find<'t, R>(
        &'t self,
        segments: &Segments<'_>,
        mut accept: impl FnMut(&'t T) -> Option<R>,
    ) -> Option<(R, Captures)> {
        let mut walk = Walk { captures: Captures::default(), accept: &mut accept };
        let found = walk.visit(&self.root, segments.as_slice(), 0)?;
        Some((found, walk.captures))
    }
}

fn child<'n, K: Ord + Clone, T>(children: &'n mut Vec<(K, Node<T>)>, key: &K) -> &'n mut Node<T> {
    let at = match children.binary_search_by(|(known, _)| known.cmp(key)) {
        Ok(at) => at,
        Err(at) => {
            children.insert(at, (key.clone(), Node::default()));
            at
        }
    };
    // The index was found or made just now.
    #[expect(clippy::indexing_slicing, reason = "binary_search and insert give an index that exists")]
    &mut children[at].1
}

struct Walk<'w, F> {
    captures: Captures,
    accept: &'w mut F,
}

impl<F> Walk<'_, F> {
    fn visit<'t, T, R>(&mut self, node: &'t Node<T>, rest: &[Cow<'_, str>], depth: usize) -> Option<R>
    where
        F: FnMut(&'t T) -> Option<R>,
    {
        let Some((segment, after)) = rest.split_first() else {
            return node.leaf.as_ref().and_then(|leaf| (self.accept)(leaf));
        };
        if let Ok(at) = node.statics.binary_search_by(|(text, _)| (**text).cmp(segment)) {
            let found = node.statics.get(at).and_then(|(_, next)| self.visit(next, after, depth + 1));
            if found.is_some() {
                return found;
            }
        }
        for (kind, next) in &node.params {
            let (capture, remaining, fits) = match kind {
                ParamType::Path => {
                    (Capture::From(depth), Default::default(), !segment.is_empty() || !after.is_empty())
                }
                _ => (Capture::Segment(depth), after, kind.accepts(segment)),
            };
            if !fits {
                continue;
            }
            self.captures.0.push(capture);
            let found = self.visit(next, remaining, depth + 1);
            if found.is_some() {
                return found;
            }
            self.captures.0.pop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trie(patterns: &[&str]) -> PathTrie<Vec<usize>> {
        let mut trie = PathTrie::default();
        for (index, text) in patterns.iter().enumerate() {
            trie.slot(&PathPattern::parse(text).unwrap()).get_or_insert_with(Vec::new).push(index);
        }
        trie
    }

    fn find(patterns: &[&str], path: &str) -> Option<(usize, Vec<String>)> {
        let trie = trie(patterns);
        let segments = Segments::of(path).unwrap();
        let (index, captures) = trie.find(&segments, |found| found.first().copied())?;
        let pattern = PathPattern::parse(patterns[index]).unwrap();
        let names: Vec<_> = pattern.params().map(|(name, _)| Arc::clone(name)).collect();
        Some((index, captures.values(&names, &segments).into_iter().map(|(_, value)| value).collect()))
    }

    #[test]
    fn the_most_specific_pattern_answers() {
        let patterns =
            ["/c/{rest:path}", "/c/{name}", "/c/{n:float}", "/c/{n:int}", "/c/new", "/c/{n:int}/x"];
        assert_eq!(find(&patterns, "/c/new"), Some((4, vec![])));
        assert_eq!(find(&patterns, "/c/7"), Some((3, vec!["7".into()])));
        assert_eq!(find(&patterns, "/c/7.5"), Some((2, vec!["7.5".into()])));
        assert_eq!(find(&patterns, "/c/seven"), Some((1, vec!["seven".into()])));
        assert_eq!(find(&patterns, "/c/7/x"), Some((5, vec!["7".into()])));
        assert_eq!(find(&patterns, "/c/7/y"), Some((0, vec!["7/y".into()])));
        assert_eq!(find(&patterns, "/c/"), None);
        assert_eq!(find(&patterns, "/c"), None);
    }

    #[test]
    fn a_specific_start_that_leads_nowhere_is_given_up() {
        let patterns = ["/a/b/c", "/a/{x}/d", "/{x}/b/{y:path}"];
        assert_eq!(find(&patterns, "/a/b/d"), Some((1, vec!["b".into()])));
        assert_eq!(find(&patterns, "/a/b/e/f"), Some((2, vec!["a".into(), "e/f".into()])));
    }

    #[test]
    fn trailing_slashes_count() {
        assert_eq!(find(&["/a", "/a/"], "/a"), Some((0, vec![])));
        assert_eq!(find(&["/a", "/a/"], "/a/"), Some((1, vec![])));
        assert_eq!(find(&["/"], "/"), Some((0, vec![])));
        assert_eq!(find(&["/{x}"], "/"), None);
    }

    /// What the trie must agree with: look at every pattern, keep those that match, take the least rank.
    fn naive(patterns: &[PathPattern], path: &str, declined: &[usize]) -> Option<(usize, Vec<String>)> {
        let segments = Segments::of(path).ok()?;
        let segments: Vec<&str> = segments.as_slice().iter().map(|s| &**s).collect();
        let mut best: Option<(Vec<u8>, usize, Vec<String>)> = None;
        'patterns: for (index, pattern) in patterns.iter().enumerate() {
            if declined.contains(&index) {
                continue;
            }
            let (mut rank, mut values, mut at) = (Vec::new(), Vec::new(), 0);
            for segment in pattern.segments() {
                let Some(text) = segments.get(at) else { continue 'patterns };
                match segment {
                    Segment::Static(expected) if **expected == **text => rank.push(0),
                    Segment::Param { kind: ParamType::Path, .. } if !segments[at..].join("/").is_empty() => {
                        rank.push(7);
                        values.push(segments[at..].join("/"));
                        at = segments.len() - 1;
                    }
                    Segment::Param { kind, .. } if *kind != ParamType::Path && kind.accepts(text) => {
                        rank.push(1 + *kind as u8);
                        values.push((*text).to_owned());
                    }
                    _ => continue 'patterns,
                }
                at += 1;
            }
            if at == segments.len() && best.as_ref().is_none_or(|(known, ..)| rank < *known) {
                best = Some((rank, index, values));
            }
        }
        best.map(|(_, index, values)| (index, values))
    }

    fn segment_text() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec!["a", "b", "", "1", "1.5", "true", "2024-01-02", "%61", "a%2Fb"])
                .prop_map(str::to_owned),
            "[a-c]{1,2}",
        ]
    }

    fn pattern_text() -> impl Strategy<Value = String> {
        let segment =
            prop::sample::select(vec!["a", "b", "1", "{}", "{}:int", "{}:float", "{}:bool", "{}:date"]);
        (prop::collection::vec(segment, 0..4), prop::sample::select(vec!["", "/", "/{}:path"])).prop_map(
            |(segments, end)| {
                let mut text = String::new();
                for (at, part) in segments.iter().enumerate() {
                    text.push('/');
                    match part.strip_prefix("{}") {
                        Some(kind) => text.push_str(&format!("{{p{at}{kind}}}")),
                        None => text.push_str(part),
                    }
                }
                text.push_str(&end.replace("{}:path", "{rest:path}"));
                if text.is_empty() { "/".to_owned() } else { text }
            },
        )
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_a_naive_matcher(
            texts in prop::collection::vec(pattern_text(), 0..12),
            parts in prop::collection::vec(segment_text(), 1..5),
            declined in prop::collection::vec(0usize..12, 0..3),
        ) {
            let mut shapes = std::collections::HashSet::new();
            let patterns: Vec<_> = texts.iter().map(|t| PathPattern::parse(t).unwrap())
                .filter(|p| shapes.insert(p.shape())).collect();
            let mut trie = PathTrie::default();
            for (index, pattern) in patterns.iter().enumerate() {
                *trie.slot(pattern) = Some(index);
            }
            let path = format!("/{}", parts.join("/"));
            let segments = Segments::of(&path).unwrap();
            let found = trie.find(&segments, |index| (!declined.contains(index)).then_some(*index))
                .map(|(index, captures)| {
                    let names: Vec<_> = patterns[index].params().map(|(name, _)| Arc::clone(name)).collect();
                    let values = captures.values(&names, &segments).into_iter().map(|(_, v)| v).collect();
                    (index, values)
                });
            prop_assert_eq!(found, naive(&patterns, &path, &declined));
        }

        #[test]
        fn no_path_makes_the_matcher_panic(path in "\\PC{0,40}", raw in "[/.%0-9a-f]{0,30}") {
            let trie = trie(&["/a/{b:int}", "/{rest:path}", "/a"]);
            for text in [path, format!("/{raw}")] {
                if let Ok(segments) = Segments::of(&text) {
                    let _ = trie.find(&segments, |found| found.first().copied());
                }
            }
        }
    }
}
