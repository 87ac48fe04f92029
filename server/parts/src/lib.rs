//! Programs of the distribution that an environment runs beside its servers: PostgreSQL or MariaDB for the
//! ODB, RabbitMQ for the bus. Each is a [`Part`] with a directory of its own, started detached and found
//! again by its process id; `crosstie start`, `stop` and `status` and the tests' fixtures use them alike.
//!
//! Nothing here is needed by servers whose database and broker somebody else runs.

mod directory;
mod error;
mod mariadb;
mod part;
mod pid;
mod postgres;
mod process;
mod rabbitmq;
mod user;

pub use error::PartError;
pub use mariadb::MariaDb;
pub use part::{Credentials, Part, PartPlan, PartTls, Reach};
pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;
pub use user::ServiceUser;
