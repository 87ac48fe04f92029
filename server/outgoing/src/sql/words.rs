//! The words of a statement, by the lexical rules of each database: what is a string, a quoted name or a
//! comment, and so holds no parameter.
//!
//! Sources: PostgreSQL's manual, "Lexical Structure" (4.1); MariaDB's "String Literals", "Comment Syntax" and
//! "Identifier Names"; SQLite's "SQL As Understood By SQLite".

/// Whose rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// PostgreSQL, with its standard strings (`standard_conforming_strings`).
    Postgres,
    /// MariaDB and MySQL, with backslashes in strings (no `NO_BACKSLASH_ESCAPES`).
    MySql,
    /// SQLite.
    Sqlite,
}

/// What a token is. Strings, quoted names and comments are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A keyword, a name or a number.
    Word,
    /// Any other character.
    Sign,
    /// `:name`
    Parameter,
    /// `\:`
    EscapedColon,
    /// A placeholder of the database's own.
    Placeholder,
}

/// A token and where it stands, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The tokens of `statement`.
pub(crate) fn tokens(statement: &str, dialect: Dialect) -> Vec<Token> {
    let mut reader = Reader { bytes: statement.as_bytes(), at: 0, dialect, found: Vec::new() };
    while reader.at < reader.bytes.len() {
        reader.step();
    }
    reader.found
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    dialect: Dialect,
    found: Vec<Token>,
}

/// What a backslash in a string is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Escapes,
    IsPlain,
}

impl Reader<'_> {
    /// The byte `ahead` of the current one; 0 past the end.
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or_default()
    }

    fn previous(&self) -> u8 {
        self.at.checked_sub(1).and_then(|index| self.bytes.get(index)).copied().unwrap_or_default()
    }

    fn push(&mut self, kind: TokenKind, length: usize) {
        let end = (self.at + length).min(self.bytes.len());
        self.found.push(Token { kind, start: self.at, end });
        self.at = end;
    }

    fn step(&mut self) {
        let is_mysql = self.dialect == Dialect::MySql;
        let is_postgres = self.dialect == Dialect::Postgres;
        match (self.peek(0), self.peek(1)) {
            (b'\'', _) => self.string(),
            (b'"', _) => self.quoted(b'"', if is_mysql { Backslash::Escapes } else { Backslash::IsPlain }),
            (b'`', _) if !is_postgres => self.quoted(b'`', Backslash::IsPlain),
            (b'[', _) if self.dialect == Dialect::Sqlite => self.skip_past(b"]"),
            (b'-', b'-') if !is_mysql || self.peek(2) <= b' ' => self.skip_past(b"\n"),
            (b'#', _) if is_mysql => self.skip_past(b"\n"),
            (b'/', b'*') => self.comment(),
            (b'$', _) if is_postgres => self.dollar(),
            (b'?', _) if !is_postgres => self.push(TokenKind::Placeholder, 1),
            (b'$' | b'@', next) if self.dialect == Dialect::Sqlite && is_name(next) => {
                self.push(TokenKind::Placeholder, 1 + self.name_after(1));
            }
            (b'\\', b':') => self.push(TokenKind::EscapedColon, 2),
            (b':', b':') => self.push(TokenKind::Sign, 2),
            (b':', next) if is_name_start(next) && !is_name(self.previous()) => {
                self.push(TokenKind::Parameter, 1 + self.name_after(1));
            }
            (byte, _) if is_name(byte) => self.push(TokenKind::Word, self.name_after(0)),
            (byte, _) if byte.is_ascii_whitespace() => self.at += 1,
            _ => self.push(TokenKind::Sign, 1),
        }
    }

    /// How many bytes of a name there are `ahead` of the current one.
    fn name_after(&self, ahead: usize) -> usize {
        let rest = self.bytes.get(self.at + ahead..).unwrap_or_default();
        rest.iter().take_while(|byte| is_name(**byte)).count()
    }

    /// A string in single quotes. PostgreSQL's has backslashes when it begins with E.
    fn string(&mut self) {
        let is_marked = self.found.last().is_some_and(|token| {
            let text = self.bytes.get(token.start..token.end).unwrap_or_default();
            token.end == self.at && matches!(text, b"E" | b"e")
        });
        let backslash = match self.dialect {
            Dialect::MySql => Backslash::Escapes,
            Dialect::Postgres if is_marked => Backslash::Escapes,
            _ => Backslash::IsPlain,
        };
        self.quoted(b'\'', backslash);
    }

    /// Everything to the closing `quote`; a doubled one is part of it.
    fn quoted(&mut self, quote: u8, backslash: Backslash) {
        self.at += 1;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\\' if backslash == Backslash::Escapes => self.at += 2,
                byte if byte == quote && self.peek(1) == quote => self.at += 2,
                byte if byte == quote => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
    }

    /// A comment with a begin and an end; PostgreSQL's hold others.
    fn comment(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') if depth == 0 || self.dialect == Dialect::Postgres => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// PostgreSQL's `$1`, or a string between `$tag$` and `$tag$`.
    fn dollar(&mut self) {
        if is_name(self.previous()) {
            // Part of a name, which may hold the character.
            self.at += 1;
            return;
        }
        let digits = self.bytes.get(self.at + 1..).unwrap_or_default();
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            self.push(TokenKind::Placeholder, 1 + digits);
            return;
        }
        let length = self.name_after(1);
        if self.peek(1 + length) != b'$' {
            self.push(TokenKind::Sign, 1);
            return;
        }
        let tag = self.bytes.get(self.at..self.at + length + 2).unwrap_or_default().to_vec();
        self.at += tag.len();
        self.skip_past(&tag);
    }

    /// Goes behind the next `end`, or to the statement's own end.
    fn skip_past(&mut self, end: &[u8]) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let found = rest.windows(end.len()).position(|window| window == end);
        self.at = found.map_or(self.bytes.len(), |index| self.at + index + end.len());
    }
}

/// Whether a name can go on with `byte`; all beyond ASCII can.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn is_name_start(byte: u8) -> bool {
    is_name(byte) && !byte.is_ascii_digit()
}
