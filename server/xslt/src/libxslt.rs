//! The thin wrapper of libxslt: the functions of `libxslt.c`, made safe.
//!
//! A stylesheet is a pointer that is freed once, with its last owner. Everything else lives as long as the call that
//! it is given to: text, parameters, and the listener that C reports to.

#![expect(unsafe_code, reason = "the functions of libxslt.c take and give pointers")]

use std::ffi::{CString, c_char, c_int, c_ulong, c_void};
use std::ptr::NonNull;

/// How much of what a stylesheet says is kept, in bytes.
const MAX_REPORT: usize = 64 * 1024;

#[repr(C)]
struct RawLimits {
    milliseconds: c_ulong,
    memory: usize,
    output: usize,
    depth: c_int,
}

#[repr(C)]
struct RawDocument {
    name: *const c_char,
    text: *const c_char,
    length: usize,
}

#[repr(C)]
struct RawParameter {
    name: *const c_char,
    value: *const c_char,
    is_expression: c_int,
}

#[repr(C)]
struct RawMade {
    method: c_int,
    encoding: [u8; 64],
    media_type: [u8; 128],
}

type ReportFunction = extern "C" fn(*mut c_void, c_int, c_int, *const c_char, usize);
type WriteFunction = extern "C" fn(*mut c_void, *const c_char, usize) -> c_int;

// SAFETY: these are the declarations of `libxslt.c`, and the structures above are its structures.
unsafe extern "C" {
    fn crosstie_xslt_compile(
        text: *const c_char,
        length: usize,
        documents: *const RawDocument,
        document_count: usize,
        report: ReportFunction,
        context: *mut c_void,
    ) -> *mut c_void;
    fn crosstie_xslt_free(stylesheet: *mut c_void);
    fn crosstie_xslt_transform(
        stylesheet: *mut c_void,
        text: *const c_char,
        length: usize,
        parameters: *const RawParameter,
        parameter_count: usize,
        limits: *const RawLimits,
        report: ReportFunction,
        write: WriteFunction,
        context: *mut c_void,
        made: *mut RawMade,
    ) -> c_int;
}

/// A piece of what the library says, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text: of an error whose place came before, or of a message of the stylesheet.
    Text(String),
    /// Where the error is that follows.
    Place(String),
    /// An error of XML or XPath, with the line where it is known.
    Library(Option<u32>, String),
}

/// Why a transformation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    Failed,
    Terminated,
    Time,
    Memory,
    Output,
    Depth,
    Forbidden,
    Source,
}

/// How a result was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Xml,
    Html,
    Text,
}

/// What a transformation may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) milliseconds: u64,
    pub(crate) memory: usize,
    pub(crate) output: usize,
    pub(crate) depth: u32,
}

/// A parameter: its value is text, or an expression of XPath.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) name: CString,
    pub(crate) value: CString,
    pub(crate) is_expression: bool,
}

/// What came of a transformation.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ended: Ended,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) output: Vec<u8>,
    pub(crate) method: Method,
    pub(crate) encoding: String,
    pub(crate) media_type: String,
}

/// A compiled stylesheet.
#[derive(Debug)]
pub(crate) struct Compiled(NonNull<c_void>);

// SAFETY: libxslt takes a compiled stylesheet as read-only and lets several threads use one (what it counts in it,
// references to its dictionary, it locks). It is not bound to the thread that made it.
unsafe impl Send for Compiled {}
// SAFETY: as above.
unsafe impl Sync for Compiled {}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: it was made by `crosstie_xslt_compile`, nobody else owns it, and nobody borrows it now.
        unsafe { crosstie_xslt_free(self.0.as_ptr()) }
    }
}

/// Whom C reports to.
#[derive(Default)]
struct Listener {
    pieces: Vec<Piece>,
    kept: usize,
    output: Vec<u8>,
}

impl Listener {
    fn hear(&mut self, kind: c_int, line: c_int, text: &[u8]) {
        if self.kept.saturating_add(text.len()) > MAX_REPORT {
            return;
        }
        self.kept += text.len();
        let text = String::from_utf8_lossy(text).into_owned();
        self.pieces.push(match kind {
            1 => Piece::Place(text),
            2 => Piece::Library(u32::try_from(line).ok().filter(|line| *line > 0), text),
            _ => Piece::Text(text),
        });
    }
}

extern "C" fn report(context: *mut c_void, kind: c_int, line: c_int, text: *const c_char, length: usize) {
    // SAFETY: C was given a listener that outlives the call and that nobody else uses during it, and `text` holds
    // `length` bytes until this returns.
    unsafe {
        let listener = &mut *context.cast::<Listener>();
        listener.hear(kind, line, std::slice::from_raw_parts(text.cast::<u8>(), length));
    }
}

extern "C" fn write(context: *mut c_void, bytes: *const c_char, length: usize) -> c_int {
    // SAFETY: as for `report`.
    unsafe {
        let listener = &mut *context.cast::<Listener>();
        listener.output.extend_from_slice(std::slice::from_raw_parts(bytes.cast::<u8>(), length));
    }
    0
}

impl Compiled {
    /// Compiles a stylesheet with what it includes and imports, by name. All are well-formed documents of less than
    /// 2 GiB.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(text: &str, documents: &[(CString, String)]) -> Result<Self, Vec<Piece>> {
        let documents: Vec<RawDocument> = documents
            .iter()
            .map(|(name, text)| RawDocument {
                name: name.as_ptr(),
                text: text.as_ptr().cast(),
                length: text.len(),
            })
            .collect();
        let mut listener = Listener::default();
        let context = (&raw mut listener).cast();
        // SAFETY: text, documents and listener outlive the call, which keeps none of them.
        let made = unsafe {
            crosstie_xslt_compile(
                text.as_ptr().cast(),
                text.len(),
                documents.as_ptr(),
                documents.len(),
                report,
                context,
            )
        };
        NonNull::new(made).map(Self).ok_or(listener.pieces)
    }

    /// Transforms `source`, a well-formed document of less than 2 GiB.
    pub(crate) fn transform(&self, source: &str, given: &[Given], limits: Limits) -> Outcome {
        let parameters: Vec<RawParameter> = given
            .iter()
            .map(|given| RawParameter {
                name: given.name.as_ptr(),
                value: given.value.as_ptr(),
                is_expression: c_int::from(given.is_expression),
            })
            .collect();
        let limits = RawLimits {
            milliseconds: limits.milliseconds,
            memory: limits.memory,
            output: limits.output,
            depth: c_int::try_from(limits.depth).unwrap_or(c_int::MAX),
        };
        let mut made = RawMade { method: 0, encoding: [0; 64], media_type: [0; 128] };
        let mut listener = Listener::default();
        let context = (&raw mut listener).cast();
        // SAFETY: everything that is pointed to outlives the call, which keeps nothing of it; the stylesheet is
        // only read.
        let ended = unsafe {
            crosstie_xslt_transform(
                self.0.as_ptr(),
                source.as_ptr().cast(),
                source.len(),
                parameters.as_ptr(),
                parameters.len(),
                &raw const limits,
                report,
                write,
                context,
                &raw mut made,
            )
        };
        Outcome {
            ended: ended_of(ended),
            pieces: listener.pieces,
            output: listener.output,
            method: match made.method {
                3 => Method::Text,
                2 => Method::Html,
                _ => Method::Xml,
            },
            encoding: text_of(&made.encoding),
            media_type: text_of(&made.media_type),
        }
    }
}

fn ended_of(number: c_int) -> Ended {
    match number {
        0 => Ended::Done,
        2 => Ended::Terminated,
        3 => Ended::Time,
        4 => Ended::Memory,
        5 => Ended::Output,
        6 => Ended::Depth,
        7 => Ended::Forbidden,
        8 => Ended::Source,
        _ => Ended::Failed,
    }
}

/// The text before the first zero.
fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
