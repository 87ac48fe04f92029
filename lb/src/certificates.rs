//! When the certificates end that HAProxy and the agent use.

use std::path::Path;

use crosstie_model::certificate::{CertificateEnd, EXPIRY_METRIC};
use crosstie_security::authority;
use crosstie_security::private_file::read_public;

use crate::material::Material;

/// Of the copies in use, below `directory`: its own, the one clients see where that is another, and the
/// authority's.
#[must_use]
pub fn ends(directory: &Path, material: &Material) -> Vec<CertificateEnd> {
    let front = (material.front != material.own).then_some(("https", &material.front));
    let named = [("load_balancer", &material.own), ("ca", &material.ca)].into_iter().chain(front);
    let end = |(certificate, path)| {
        let text = String::from_utf8(read_public(&directory.join(path)).ok()?).ok()?;
        Some(CertificateEnd::new(certificate, authority::expires_at(&text).ok()?))
    };
    named.filter_map(end).collect()
}

/// The same for Prometheus.
#[must_use]
pub fn metrics(ends: &[CertificateEnd]) -> String {
    let mut text = format!(
        "# HELP {EXPIRY_METRIC} When a certificate in use ends, in seconds since 1970.\n\
         # TYPE {EXPIRY_METRIC} gauge\n"
    );
    for end in ends {
        let (name, seconds) = (&end.certificate, end.unix_seconds());
        text.push_str(&format!("{EXPIRY_METRIC}{{certificate=\"{name}\"}} {seconds}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_security::CertificateAuthority;

    #[test]
    fn each_certificate_in_use_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::create("test").unwrap();
        let issued = authority.issue_client("lb").unwrap();
        std::fs::write(directory.path().join("own"), &issued.certificate_pem).unwrap();
        std::fs::write(directory.path().join("ca"), authority.certificate_pem()).unwrap();
        let mut material =
            Material { ca: "ca".into(), own: "own".into(), front: "own".into(), client_ca: None };
        let found = ends(directory.path(), &material);
        let names: Vec<_> = found.iter().map(|end| end.certificate.as_str()).collect();
        assert_eq!(names, ["load_balancer", "ca"]);
        assert_eq!(found[0].expires, authority::expires_at(&issued.certificate_pem).unwrap());
        let line = format!("{EXPIRY_METRIC}{{certificate=\"ca\"}} {}\n", found[1].unix_seconds());
        assert!(metrics(&found).ends_with(&line), "{}", metrics(&found));
        // The public's certificate is another authority's.
        std::fs::copy(directory.path().join("ca"), directory.path().join("front")).unwrap();
        material.front = "front".into();
        assert_eq!(ends(directory.path(), &material).len(), 3);
    }
}
