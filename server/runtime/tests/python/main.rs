//! Services in the real interpreter.

mod calls;
mod support;
