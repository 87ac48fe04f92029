//! Who may do what, and how secrets are kept: the cluster key and what it seals, passwords, tokens, the
//! environment's certificate authority, TLS configurations and the authenticators of channels.
//!
//! Layer 1. Nothing here listens, connects or starts a thread: callers bring the sockets. The only I/O of its
//! own is reading and writing key files, done when a process starts, a snapshot is built or a certificate is
//! replaced; never while a request is served. What authenticators have to ask other systems goes through a port
//! ([`crosstie_model::inquiry`]), on tasks of their own.

pub mod authority;
pub mod certificate;
pub mod cluster_key;
pub mod credentials;
pub mod identity;
pub mod password;
pub mod private_file;
pub mod revoked;
pub mod secret;
pub mod tls;
pub mod token;

pub use authority::CertificateAuthority;
pub use certificate::ReloadingCertificate;
pub use cluster_key::ClusterKey;
pub use credentials::{Authenticators, CredentialSource};
pub use private_file::{create_private_directory, write_private};
pub use revoked::Revoked;
pub use secret::SecretResolver;
