//! Where in a JSON document one stands, and what was found wrong there.

use std::fmt::Write as _;

use crosstie_model::Fault;

use super::MAX_FAULTS;

/// One step down.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'k> {
    Key(&'k str),
    Index(usize),
}

/// The way from the top, and the faults on it. A pointer is made of it only where something is wrong.
#[derive(Debug, Default)]
pub(super) struct Trail<'k> {
    steps: Vec<Step<'k>>,
    pub(super) faults: Vec<Fault>,
}

impl<'k> Trail<'k> {
    pub(super) fn push(&mut self, step: Step<'k>) {
        self.steps.push(step);
    }

    pub(super) fn pop(&mut self) {
        self.steps.pop();
    }

    /// Notes that something is wrong here.
    pub(super) fn fault(&mut self, detail: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault { pointer: self.pointer(None), detail: detail.into() });
        }
    }

    /// Notes that something is wrong with the member `key` of what is here.
    pub(super) fn fault_at(&mut self, key: &str, detail: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault { pointer: self.pointer(Some(key)), detail: detail.into() });
        }
    }

    /// The JSON Pointer (RFC 6901) of this place, or of the member `key` of it.
    fn pointer(&self, key: Option<&str>) -> String {
        let mut pointer = String::new();
        for step in self.steps.iter().copied().chain(key.map(Step::Key)) {
            pointer.push('/');
            match step {
                Step::Key(key) => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => {
                    let _ = write!(pointer, "{index}");
                }
            }
        }
        pointer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_json_pointers() {
        let mut trail = Trail::default();
        trail.fault("top");
        trail.push(Step::Key("a/b~c"));
        trail.push(Step::Index(3));
        trail.fault_at("d", "deep");
        trail.pop();
        trail.pop();
        let pointers: Vec<_> = trail.faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["", "/a~1b~0c/3/d"]);
        (0..MAX_FAULTS * 2).for_each(|_| trail.fault("many"));
        assert_eq!(trail.faults.len(), MAX_FAULTS);
    }
}
