//! What Crosstie promises its users, tried on the real binary, and what its source promises its maintainers.
//!
//! One test binary: linking is what end-to-end tests cost most. Each module is one promise's topic.

mod layering;
