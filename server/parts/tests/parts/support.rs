//! A part that is gone when the test is over.

use std::path::Path;

use crosstie_model::secret::SecretValue;
use crosstie_parts::{Credentials, Part, PartPlan, Reach, ServiceUser};
use crosstie_test_support::PortBase;
use crosstie_test_support::parts::Authority;

/// A part under test; stopped when dropped, also by a test that panics.
pub(crate) struct Started<P: Part> {
    pub(crate) part: P,
}

impl<P: Part> Drop for Started<P> {
    fn drop(&mut self) {
        if let Err(error) = self.part.stop() {
            println!("{error}");
        }
    }
}

/// The plan of a part in `directory/name` of the user `user`, with a certificate of a CA in `directory`.
pub(crate) fn plan(directory: &Path, name: &str, user: &str, port: &PortBase) -> PartPlan {
    let authority = Authority::new(directory).unwrap();
    PartPlan {
        directory: directory.join(name),
        address: ([127, 0, 0, 1], port.number()).into(),
        tls: Some(authority.issue("part", &["127.0.0.1"]).unwrap()),
        user: ServiceUser::for_part(user).unwrap(),
    }
}

/// Credentials with a password that needs quoting.
pub(crate) fn credentials() -> Credentials {
    Credentials {
        user: "crosstie".into(),
        password: SecretValue::new(b"it's \"$ecret\"; --".to_vec()),
        database: "crosstie".into(),
        reach: Reach::OneDatabase,
    }
}
