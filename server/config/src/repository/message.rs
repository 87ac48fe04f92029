//! Commits as bytes. Git's format is small, and writing it here means that no default, environment variable
//! or future version of a library decides a hash.

use crosstie_model::Revision;
use git2::Oid;

/// Longest author that is kept, in characters.
const MAX_AUTHOR: usize = 200;

/// Longest message that is kept, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// The line that ends a cluster commit's message.
const REVISION_TRAILER: &str = "Revision: ";

/// A commit before it has a hash. Author and committer are one, the time zone is UTC.
pub(super) struct CommitText<'a> {
    pub(super) tree: Oid,
    pub(super) parent: Option<Oid>,
    pub(super) author: &'a str,
    /// Seconds since 1970.
    pub(super) seconds: i64,
    pub(super) message: &'a str,
}

impl CommitText<'_> {
    /// The content of the commit object.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let name = clean_author(self.author);
        let who = format!("{name} <{}> {} +0000", address(&name), self.seconds);
        let parent = self.parent.map_or_else(String::new, |parent| format!("parent {parent}\n"));
        let message = clean_message(self.message);
        format!("tree {}\n{parent}author {who}\ncommitter {who}\n\n{message}\n", self.tree).into_bytes()
    }
}

/// An author git can write: no angle brackets, no control characters, never empty.
fn clean_author(author: &str) -> String {
    let allowed = |c: char| if c.is_control() || matches!(c, '<' | '>') { '_' } else { c };
    let kept: String = author.trim().chars().take(MAX_AUTHOR).map(allowed).collect();
    let trimmed = kept.trim_matches([' ', '.', ',', ':', ';', '"', '\'', '\\']);
    if trimmed.is_empty() { "unknown".to_owned() } else { trimmed.to_owned() }
}

/// Git wants an address; there is none, so it says where the name is known.
fn address(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let local: String = name.chars().map(allowed).collect();
    format!("{local}@crosstie.invalid")
}

/// A message git can write: lines ended by LF, no other control characters, no blank lines around it.
fn clean_message(message: &str) -> String {
    let message = message.replace("\r\n", "\n");
    let allowed = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let mut kept = String::new();
    for c in message.chars().filter(allowed) {
        if kept.len() + c.len_utf8() > MAX_MESSAGE {
            break;
        }
        kept.push(c);
    }
    let trimmed = kept.trim_matches('\n').trim_end();
    if trimmed.is_empty() { "No message".to_owned() } else { trimmed.to_owned() }
}

/// A cluster commit's message: the audit row's, and its revision as the last line.
pub(super) fn with_revision(message: &str, revision: Revision) -> String {
    format!("{}\n\n{REVISION_TRAILER}{revision}", clean_message(message))
}

/// The revision that [`with_revision`] put into `message`.
pub(super) fn revision_of(message: &str) -> Option<Revision> {
    let last = message.trim_end_matches('\n').rsplit('\n').next()?;
    last.strip_prefix(REVISION_TRAILER)?.parse().ok().map(Revision)
}

/// `message` without its revision.
pub(super) fn without_revision(message: &str) -> &str {
    let message = message.trim_end_matches('\n');
    match message.rsplit_once('\n') {
        Some((rest, last)) if last.starts_with(REVISION_TRAILER) => rest.trim_end_matches('\n'),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_author_cannot_forge_a_commit() {
        assert_eq!(clean_author("Ada <a@b>\nparent x"), "Ada _a@b__parent x");
        assert_eq!(clean_author(" .,; "), "unknown");
        assert_eq!(address("Ada Lovelace"), "Ada_Lovelace@crosstie.invalid");
    }

    #[test]
    fn a_message_cannot_forge_a_revision() {
        let message = with_revision("Change\n\nRevision: 99", Revision(7));
        assert_eq!(revision_of(&message), Some(Revision(7)));
        assert_eq!(without_revision(&message), "Change\n\nRevision: 99");
        assert_eq!(revision_of("Change\n"), None);
        assert_eq!(with_revision("", Revision(1)), "No message\n\nRevision: 1");
    }

    #[test]
    fn the_bytes_of_a_commit_never_change() {
        let tree = Oid::from_str("4b825dc642cb6eb9a060e54bf8d69288fbee4904").unwrap();
        let text =
            CommitText { tree, parent: Some(tree), author: "ada", seconds: 1, message: "Do\r\nit\n\n" };
        let expected = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
                        parent 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
                        author ada <ada@crosstie.invalid> 1 +0000\n\
                        committer ada <ada@crosstie.invalid> 1 +0000\n\nDo\nit\n";
        assert_eq!(String::from_utf8(text.to_bytes()).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_text_makes_a_well_formed_commit(author in "\\PC{0,30}", message in "(\\PC|\n|\r|\u{0}){0,60}",
                                               revision in any::<u64>()) {
            let message = with_revision(&message, Revision(revision));
            prop_assert_eq!(revision_of(&message), Some(Revision(revision)));
            let tree = Oid::from_str("4b825dc642cb6eb9a060e54bf8d69288fbee4904").unwrap();
            let bytes = CommitText { tree, parent: None, author: &author, seconds: 0, message: &message }.to_bytes();
            let text = String::from_utf8(bytes).unwrap();
            let (head, _) = text.split_once("\n\n").unwrap();
            prop_assert_eq!(head.lines().count(), 3);
            prop_assert!(!text.contains('\0') && !text.contains('\r'));
        }
    }
}
