//! `name=value` pairs of query strings and forms (WHATWG URL standard, section 5.1), with one difference:
//! bytes that are no UTF-8 are an error and not replaced, since a replaced character is data nobody sent.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Most pairs of one query string or form; more is 400.
pub const MAX_PAIRS: usize = 1000;

/// Why a text is no list of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PairsError {
    /// A name or value decodes to something else than UTF-8.
    #[error("a name or value is not valid percent-encoded UTF-8")]
    NotUtf8,
    /// More than [`MAX_PAIRS`].
    #[error("there are more than {MAX_PAIRS} parameters")]
    TooMany,
}

/// Decodes pairs in order; names may repeat. Empty pieces (`a=1&&b=2`) are passed over.
///
/// # Errors
/// [`PairsError`].
pub fn parse(text: &[u8]) -> Result<Vec<(String, String)>, PairsError> {
    let mut pairs = Vec::new();
    for piece in text.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()) {
        if pairs.len() == MAX_PAIRS {
            return Err(PairsError::TooMany);
        }
        let mut halves = piece.splitn(2, |byte| *byte == b'=');
        let name = decode(halves.next().unwrap_or_default())?;
        let value = decode(halves.next().unwrap_or_default())?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn decode(text: &[u8]) -> Result<String, PairsError> {
    let spaced: Cow<'_, [u8]> = if text.contains(&b'+') {
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect::<Vec<_>>().into()
    } else {
        text.into()
    };
    let bytes: Cow<'_, [u8]> = percent_decode(&spaced).into();
    String::from_utf8(bytes.into_owned()).map_err(|_| PairsError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn pairs_are_decoded_in_order() {
        assert_eq!(pairs("a=1&b=x+y&a=%C3%A9"), [pair("a", "1"), pair("b", "x y"), pair("a", "é")]);
        assert_eq!(pairs("&a&=b&c=d=e&"), [pair("a", ""), pair("", "b"), pair("c", "d=e")]);
        assert_eq!(pairs("p=100%&q=%zz"), [pair("p", "100%"), pair("q", "%zz")]);
        assert_eq!(pairs(""), []);
    }

    #[test]
    fn bytes_that_are_no_utf8_are_refused() {
        assert_eq!(parse(b"a=%FF"), Err(PairsError::NotUtf8));
        assert_eq!(parse(b"\xff=1"), Err(PairsError::NotUtf8));
    }

    #[test]
    fn too_many_pairs_are_refused() {
        assert!(parse("a&".repeat(MAX_PAIRS).as_bytes()).is_ok());
        assert_eq!(parse("a&".repeat(MAX_PAIRS + 1).as_bytes()), Err(PairsError::TooMany));
    }

    proptest! {
        #[test]
        fn what_a_client_encodes_arrives(sent in prop::collection::vec((".{1,8}", ".{0,8}"), 0..6)) {
            let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(&sent).finish();
            prop_assert_eq!(parse(text.as_bytes()).unwrap(), sent);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
