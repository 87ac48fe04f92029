//! Keeps secrets out of what is written: by the name of a field, and by what credentials look like in text.
//!
//! This is the net under the rule that nobody logs a secret, not a licence to. It costs one pass over each
//! text of a log record, on the thread that logs.

use std::borrow::Cow;

/// What stands in a secret's place.
pub(crate) const MASK: &str = "***";

/// Words that make a field's value a secret when its name holds one.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "cookie",
    "credential",
    "api_key",
    "apikey",
    "api-key",
    "private_key",
    "private-key",
    "privatekey",
];

/// Authentication schemes whose credentials follow in text.
const SCHEMES: &[&str] = &["bearer ", "basic "];

/// Shortest text after a scheme that is taken for credentials: "basic auth" and "bearer token" are prose.
const MIN_CREDENTIALS: usize = 8;

/// Whether a field of that name holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    SECRET_WORDS.iter().any(|word| find(name, word).is_some())
}

/// `text` with what looks like credentials masked: `password=…` and its like, `Bearer …`, `Basic …`, the
/// password in a URL, and tokens of this product.
pub(crate) fn mask_text(text: &str) -> Cow<'_, str> {
    let mut spans = Vec::new();
    for word in SECRET_WORDS {
        each(text, word, |end| spans.extend(assigned_value(text, end)));
    }
    for scheme in SCHEMES {
        each(text, scheme, |end| spans.extend(credentials(text, end)));
    }
    each(text, "://", |end| spans.extend(url_password(text, end)));
    each(text, "ct_", |end| spans.extend(token(text, end)));
    masked(text, spans)
}

/// `text` with the values masked that are assigned to `name`: `name=…`, `"name": …`.
pub(crate) fn mask_assigned<'a>(text: &'a str, name: &str) -> Cow<'a, str> {
    let mut spans = Vec::new();
    let goes_on =
        |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    each(text, name, |end| {
        let before = (end - name.len()).checked_sub(1).and_then(|at| text.as_bytes().get(at));
        if !goes_on(before) && !goes_on(text.as_bytes().get(end)) {
            spans.extend(assigned_value(text, end));
        }
    });
    masked(text, spans)
}

fn masked(text: &str, mut spans: Vec<(usize, usize)>) -> Cow<'_, str> {
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    spans.sort_unstable();
    let (mut masked, mut done) = (String::with_capacity(text.len()), 0);
    for (start, end) in spans {
        if end <= done {
            continue;
        }
        masked.push_str(text.get(done..start.max(done)).unwrap_or_default());
        if start >= done {
            masked.push_str(MASK);
        }
        done = end;
    }
    masked.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(masked)
}

/// `=VALUE`, `: VALUE` or `": "VALUE"` after a word, to the end of the value.
fn assigned_value(text: &str, word_end: usize) -> Option<(usize, usize)> {
    let rest = text.get(word_end..)?;
    // The word may be the beginning of a longer name: `password_hash`, `token-id`.
    let name = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')).count();
    let rest = rest.get(name..)?;
    let closing = rest.bytes().take_while(|b| matches!(b, b'"' | b'\'')).count();
    let rest = rest.get(closing..)?;
    let blank = rest.bytes().take_while(|b| *b == b' ').count();
    let rest = rest.get(blank..)?.strip_prefix(['=', ':'])?;
    let blank_after = rest.bytes().take_while(|b| *b == b' ').count();
    let rest = rest.get(blank_after..)?;
    let start = word_end + name + closing + blank + 1 + blank_after;
    if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let length = closing_quote(rest.get(1..)?, quote);
        return Some((start + 1, start + 1 + length)).filter(|_| length > 0);
    }
    let end = |c: char| c.is_whitespace() || matches!(c, '&' | ',' | ';' | ')' | '}' | ']');
    let length = rest.find(end).unwrap_or(rest.len());
    // `authorization: Basic …`: the scheme is no secret, what follows it is masked as credentials.
    let value = rest.get(..length)?;
    let scheme = SCHEMES.iter().any(|scheme| value.eq_ignore_ascii_case(scheme.trim()));
    Some((start, start + length)).filter(|_| length > 0 && !scheme)
}

/// Up to the quote that ends the value: one after a backslash does not.
fn closing_quote(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return index,
            _ => {}
        }
    }
    text.len()
}

fn credentials(text: &str, start: usize) -> Option<(usize, usize)> {
    let token68 = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    let rest = text.get(start..)?;
    let length = rest.bytes().take_while(|b| token68(*b)).count();
    // "Basic authentication" is prose; encoded credentials have more than lower-case letters.
    let encoded = rest.bytes().take(length).any(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    (length >= MIN_CREDENTIALS && encoded).then_some((start, start + length))
}

/// The password of `scheme://user:password@host`.
fn url_password(text: &str, start: usize) -> Option<(usize, usize)> {
    let rest = text.get(start..)?;
    let end =
        rest.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"')).unwrap_or(rest.len());
    let at = rest.get(..end)?.rfind('@')?;
    let colon = rest.get(..at)?.find(':')?;
    (at > colon + 1).then_some((start + colon + 1, start + at))
}

/// A token of this product: `ct_`, 16 hexadecimal digits, `_`, 43 base64url characters.
fn token(text: &str, start: usize) -> Option<(usize, usize)> {
    let rest = text.get(start..)?;
    let id = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    let secret = rest.get(id..)?.strip_prefix('_')?;
    let length = secret.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')).count();
    let begin = start + id + 1;
    (id == 16 && length >= 32).then_some((begin, begin + length))
}

/// Calls `found` with the end of every place where `word` (ASCII, lower case) stands in `text`, whatever its
/// case there.
fn each(text: &str, word: &str, mut found: impl FnMut(usize)) {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| find(rest, word)) {
        from += at + word.len();
        found(from);
    }
}

fn find(text: &str, word: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    // Both ends of a match of ASCII bytes are character boundaries.
    bytes.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_secret_fields_are_known() {
        for name in ["password", "DB_PASSWORD", "apiKey", "X-Api-Key", "access_token", "Set-Cookie"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["user", "path", "keyboard", "cid"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn credentials_in_text_are_masked() {
        for (text, masked) in [
            ("login with password=hunter2 failed", "login with password=*** failed"),
            ("?api_key=abc&x=1", "?api_key=***&x=1"),
            (r#"{"password": "a \" b", "user": "u"}"#, r#"{"password": "***", "user": "u"}"#),
            ("{'client_secret': 'x y'}", "{'client_secret': '***'}"),
            ("Authorization: Basic QWxhZGRpbjpvcGVu", "Authorization: Basic ***"),
            ("sent bearer eyJhbGciOi.x.y today", "sent bearer *** today"),
            ("postgres://app:s3cret@db:5432/x", "postgres://app:***@db:5432/x"),
            ("amqp://u:p@ss@host", "amqp://u:***@host"),
            ("token: abc, user: x", "token: ***, user: x"),
        ] {
            assert_eq!(mask_text(text), masked);
        }
        let token = format!("got ct_0123456789abcdef_{}!", "x".repeat(43));
        assert_eq!(mask_text(&token), "got ct_0123456789abcdef_***!");
    }

    #[test]
    fn prose_stays_as_it_is() {
        for text in [
            "the password was wrong",
            "basic authentication failed",
            "bearer token missing",
            "http://host:8080/path@x",
            "act_on: x",
            "no secrets here, ünïcödé neither",
        ] {
            assert_eq!(mask_text(text), text);
            assert!(matches!(mask_text(text), Cow::Borrowed(_)));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_masked_without_a_panic(text in ".{0,200}") {
            let _ = mask_text(&text);
        }

        #[test]
        fn a_password_never_survives(prefix in "[a-zé ]{0,20}", secret in "[A-Z0-9]{6,20}", suffix in "( .{0,20})?") {
            let masked = mask_text(&format!("{prefix}password={secret}{suffix}")).into_owned();
            let start = format!("{prefix}password=***");
            prop_assert!(masked.starts_with(&start), "{}", masked);
        }
    }
}
