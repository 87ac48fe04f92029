//! What libxslt says, for a person: one line for each error, and the messages of the stylesheet.

use crate::libxslt::Piece;

/// Errors in their order: `line 3, element value-of: could not compile select expression 'a[' (Invalid expression)`.
pub(crate) fn errors(pieces: &[Piece]) -> Vec<String> {
    let mut errors: Vec<String> = Vec::new();
    // What is said before its place is.
    let mut reasons: Vec<String> = Vec::new();
    let mut pieces = pieces.iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Place(place) => {
                let mut text = String::new();
                while let Some(Piece::Text(more)) = pieces.next_if(|next| matches!(next, Piece::Text(_))) {
                    text.push_str(more);
                }
                let (place, text) = (place_of(place), clean(&text));
                if place.is_empty() {
                    reasons.push(text);
                    continue;
                }
                let text = if text.is_empty() { reasons.pop().unwrap_or_default() } else { text };
                let reasons = std::mem::take(&mut reasons);
                let why =
                    if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
                errors.push(format!("{place}{text}{why}"));
            }
            Piece::Library(Some(line), text) => errors.push(format!("line {line}: {}", clean(text))),
            Piece::Library(None, text) => reasons.push(clean(text)),
            Piece::Text(_) => {}
        }
    }
    errors.extend(reasons);
    errors
}

/// What the stylesheet said with `xsl:message`.
pub(crate) fn messages(pieces: &[Piece]) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let mut is_of_error = false;
    for piece in pieces {
        match piece {
            Piece::Text(text) if !is_of_error => {
                let text = text.trim_end_matches('\n');
                if !text.is_empty() {
                    messages.push(text.to_owned());
                }
            }
            Piece::Text(_) => {}
            Piece::Place(_) | Piece::Library(..) => is_of_error = true,
        }
    }
    messages
}

/// What the stylesheet tried that it may not: what comes after that follows from it.
pub(crate) fn refusal(pieces: &[Piece]) -> String {
    let refusal = pieces.iter().find_map(|piece| match piece {
        Piece::Library(None, text) if text.ends_with("is not allowed") => Some(text.clone()),
        _ => None,
    });
    refusal.unwrap_or_else(|| "it reads or writes what is not allowed".to_owned())
}

/// The base of addresses, and the address of a stylesheet itself below it: see `libxslt.c`.
const BASE: &str = "crosstie:/";
const STYLESHEET: &str = "stylesheet.xsl";

/// `compilation error: file … line 3 element value-of` as `line 3, element value-of: `, after the name of the document
/// where that is not the stylesheet itself.
fn place_of(text: &str) -> String {
    let after = |word: &str| {
        let (_, rest) = text.split_once(word)?;
        rest.split_whitespace().next()
    };
    let document =
        after(" file ").and_then(|file| file.strip_prefix(BASE)).filter(|name| *name != STYLESHEET);
    let document = document.map(|name| format!("{name}: ")).unwrap_or_default();
    match (after(" line "), after(" element ")) {
        (Some(line), Some(element)) => format!("{document}line {line}, element {element}: "),
        (Some(line), None) => format!("{document}line {line}: "),
        (None, Some(element)) => format!("{document}element {element}: "),
        (None, None) => document,
    }
}

/// One line, without the name of the function that found the error.
fn clean(text: &str) -> String {
    let text = text.trim();
    let text = match text.split_once(':') {
        Some((function, rest)) if function.starts_with("xslt") || function.starts_with("exslt") => {
            rest.trim()
        }
        _ => text,
    };
    // What follows in the line of a setting of xsltproc.
    let text = text.split("\nYou can adjust").next().unwrap_or(text);
    let text = text.replace(BASE, "");
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Piece {
        Piece::Place(format!("{text}\n"))
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn an_error_is_told_with_its_place_and_reason() {
        let pieces = [
            Piece::Library(None, "Invalid expression\n".into()),
            place("compilation error: file crosstie:/stylesheet.xsl line 3 element value-of"),
            text("xsl:value-of : could not compile select expression 'a['\n"),
            place("compilation error: file crosstie:/parts/a.xsl line 7 element valueof"),
            text("xsltStylePreCompute: unknown xsl:valueof\n"),
            Piece::Library(Some(9), "Opening and ending tag mismatch\n".into()),
            place("runtime error"),
            text("Evaluating user parameter n failed\n"),
            Piece::Library(None, "out of luck".into()),
        ];
        assert_eq!(
            errors(&pieces),
            [
                "line 3, element value-of: xsl:value-of : could not compile select expression 'a[' \
                 (Invalid expression)",
                "parts/a.xsl: line 7, element valueof: unknown xsl:valueof",
                "line 9: Opening and ending tag mismatch",
                "Evaluating user parameter n failed",
                "out of luck",
            ]
        );
        assert_eq!(messages(&pieces), [] as [&str; 0]);
    }

    #[test]
    fn messages_are_what_is_said_before_any_error() {
        let pieces =
            [text("first"), text("\n"), text("second\nhalf"), text("\n"), place("runtime error"), text("x")];
        assert_eq!(messages(&pieces), ["first", "second\nhalf"]);
    }
}
