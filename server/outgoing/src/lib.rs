//! Outgoing connections: what services call in the outside world.
//!
//! Layer 2. Implements the traits of `crosstie_model::outgoing`; whoever calls knows only those.
