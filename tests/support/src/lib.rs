//! Starts real environments for tests and benchmarks, talks to them as their users do, and cleans up by
//! process id. Nothing here stands in for a part of the product.
//!
//! A test starts with [`Environment::start`]; what it made is gone when the value is dropped, and when the
//! test panicked the end of the server's logs is printed first.

pub mod cluster;
pub mod command;
pub mod environment;
pub mod http;
pub mod load;
pub mod parts;
pub mod pki;
pub mod ports;
pub mod processes;
pub mod proxy;
pub mod upstream;
pub mod wait;
pub mod wrk;

pub use cluster::Cluster;
pub use command::{Command, Outcome};
pub use environment::{Builder, Environment};
pub use http::{Http, Reply};
pub use load::{Account, Kind, Load, Phase};
pub use pki::{Issued, Pki, Validity};
pub use ports::PortBase;
pub use proxy::Wire;
pub use upstream::{Asked, Said, Upstream};
pub use wait::{HANG, wait_for, wait_until};
