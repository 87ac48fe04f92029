//! Where in a document a conversion stands, kept on the stack and written out only when there is a fault.

use crosstie_model::Fault;

/// How much of a name stands in a pointer, in bytes: a long one would be there in the pointer of everything
/// below it.
const NAME: usize = 256;

/// A place in a JSON document.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'a> {
    /// The whole of it.
    Root,
    /// A member of an object.
    Member(&'a Path<'a>, &'a str),
    /// An element of an array.
    Element(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// The place as a JSON Pointer (RFC 6901).
    pub(crate) fn pointer(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    /// What is wrong at this place.
    pub(crate) fn fault(&self, detail: impl Into<String>) -> Fault {
        Fault { pointer: self.pointer(), detail: detail.into() }
    }

    /// How deep the place is.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Root => 0,
            Self::Member(parent, _) | Self::Element(parent, _) => 1 + parent.depth(),
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Root => {}
            Self::Member(parent, name) => {
                parent.write(text);
                text.push('/');
                let shown = name.get(..name.floor_char_boundary(NAME)).unwrap_or(name);
                text.push_str(&shown.replace('~', "~0").replace('/', "~1"));
                if shown.len() < name.len() {
                    text.push('…');
                }
            }
            Self::Element(parent, index) => {
                parent.write(text);
                text.push('/');
                text.push_str(&index.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_json_pointer() {
        let root = Path::Root;
        let list = Path::Member(&root, "a/b~c");
        let element = Path::Element(&list, 3);
        assert_eq!(element.pointer(), "/a~1b~0c/3");
        assert_eq!(root.pointer(), "");
        assert_eq!(element.depth(), 2);
        let long = "é".repeat(1_000_000);
        let below = Path::Member(&root, &long);
        assert_eq!(Path::Element(&below, 1).pointer(), format!("/{}…/1", "é".repeat(NAME / 2)));
    }
}
