//! The load balancer's agent: it owns an HAProxy, learns the servers of the cluster from their management
//! API, and keeps HAProxy's configuration and servers as they should be.
//!
//! Layer 3. [`run`] is the program; [`settings`] is for whoever makes a load balancer's directory; the other
//! modules are its parts. The decisions are pure functions (`member` for the pool, `render` for the
//! configuration, `reconcile` for what to tell a running HAProxy); `agent` carries them out.

mod accepted;
pub mod agent;
pub mod api;
pub mod certificates;
pub mod check;
pub mod directory;
pub mod haproxy;
pub mod listening;
pub mod material;
pub mod member;
pub mod poll;
pub mod reconcile;
pub mod render;
pub mod report;
mod run;
pub mod runtime;
pub mod settings;
pub mod snippet;
pub mod statistics;

pub use run::run;
