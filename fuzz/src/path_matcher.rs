//! Path patterns and the trie: whatever the patterns and the path, a match keeps its promises.

#![no_main]

use crosstie_channels::pattern::{PathPattern, PathTrie, Segments};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let mut lines = data.split('\n');
    let path = lines.next().unwrap_or_default();
    let patterns: Vec<PathPattern> = lines.take(16).filter_map(|line| PathPattern::parse(line).ok()).collect();
    let mut trie = PathTrie::default();
    for (index, pattern) in patterns.iter().enumerate() {
        // What was parsed is a pattern again when it is written down.
        assert!(PathPattern::parse(&pattern.to_string()).is_ok(), "{pattern}");
        trie.slot(pattern).get_or_insert(index);
    }
    let Ok(segments) = Segments::of(path) else { return };
    let Some((index, captures)) = trie.find(&segments, |index| Some(*index)) else { return };
    let pattern = &patterns[index];
    let names: Vec<_> = pattern.params().map(|(name, _)| name.clone()).collect();
    let values = captures.values(&names, &segments);
    assert_eq!(values.len(), names.len(), "{pattern} {path}");
    for ((name, kind), (captured, value)) in pattern.params().zip(&values) {
        assert_eq!(name, captured);
        assert!(kind.as_str() == "path" || kind.accepts(value), "{pattern} took {value:?}");
    }
});
