//! What this worker knows of its server's place in the cluster, for whoever asks without an ODB: readiness,
//! status, metrics.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use crosstie_model::certificate::CertificateEnd;
use crosstie_odb::MemberState;
use crosstie_security::{ReloadingCertificate, authority};

/// See the module.
#[derive(Default)]
pub(crate) struct Membership {
    /// Whether this worker leads the cluster.
    leading: AtomicBool,
    /// Whether the server is no member any more.
    gone: AtomicBool,
    /// How the server is, as its singleton last said; nothing in other workers.
    state: ArcSwapOption<MemberState>,
    /// Why the newest revision is not served.
    refused: ArcSwapOption<String>,
    certificates: ArcSwap<Vec<CertificateEnd>>,
}

impl Membership {
    /// Whether this worker leads the cluster.
    pub(crate) fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// Notes whether this worker leads the cluster; says whether that is news.
    pub(crate) fn lead(&self, leading: bool) -> bool {
        self.leading.swap(leading, Ordering::AcqRel) != leading
    }

    /// Notes that the server is no member any more.
    pub(crate) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.say(Some(MemberState::Left));
    }

    /// Whether the server is no member any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// How the server is, when this worker is its singleton.
    pub(crate) fn state(&self) -> Option<MemberState> {
        self.state.load().as_deref().copied()
    }

    /// Notes how the server is.
    pub(crate) fn say(&self, state: Option<MemberState>) {
        if state.is_some_and(MemberState::is_live) {
            self.gone.store(false, Ordering::Release);
        }
        self.state.store(state.map(Arc::new));
    }

    /// Why this worker does not serve the newest revision, if it could not.
    pub(crate) fn refused(&self) -> Option<Arc<String>> {
        self.refused.load_full()
    }

    /// Notes that a revision could not be served, or that one was.
    pub(crate) fn note_refusal(&self, reason: Option<String>) {
        self.refused.store(reason.map(Arc::new));
    }

    /// When the certificates this server uses end.
    pub(crate) fn certificates(&self) -> Arc<Vec<CertificateEnd>> {
        self.certificates.load_full()
    }

    /// Reads when the certificate in use and the authority's end.
    pub(crate) fn note_certificates(&self, server: &ReloadingCertificate, ca: &Path) {
        let mut ends = vec![CertificateEnd::new("server", server.expires())];
        let authority = std::fs::read_to_string(ca).ok();
        if let Some(expires) = authority.and_then(|pem| authority::expires_at(&pem).ok()) {
            ends.push(CertificateEnd::new("ca", expires));
        }
        self.certificates.store(Arc::new(ends));
    }
}
