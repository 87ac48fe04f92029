//! The cluster's leader: the one singleton that holds the lease for it.
//!
//! The lease is timed by the database's clock and carries a fencing number. All the leader ever does is write
//! to the ODB, in transactions that see the lease first: one that was paused, or cut off and replaced, and
//! then goes on changes nothing, whatever it believes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crosstie_model::settings::ClusterSection;
use crosstie_model::{Cid, UnitName};
use crosstie_odb::{LEADER_LEASE, Lease, Odb, OdbError, Retention, leader_holder};
use tokio::time::{Instant, MissedTickBehavior};

use crate::follow::Standing;

/// How often what has expired is removed.
const PURGE_EVERY: Duration = Duration::from_secs(60);

/// How long giving the lease up may take.
const RESIGNATION: Duration = Duration::from_secs(2);

const SECONDS_OF_A_DAY: u64 = 86_400;

/// A singleton that leads, or would.
#[derive(Clone)]
pub(super) struct Candidate {
    odb: Odb,
    standing: Arc<Standing>,
    /// Names this process: a successor on the same server is another holder.
    holder: String,
    heartbeat: Duration,
    lapse: Duration,
    retention: Retention,
    held: Arc<Mutex<Option<Lease>>>,
}

impl Candidate {
    /// A candidate of the server `server`.
    pub(super) fn new(
        server: &UnitName,
        odb: Odb,
        standing: Arc<Standing>,
        settings: &ClusterSection,
    ) -> Self {
        let days = u64::from(settings.audit_days);
        let audit = (days > 0).then(|| Duration::from_secs(days * SECONDS_OF_A_DAY));
        Self {
            odb,
            standing,
            holder: leader_holder(server.as_str(), &Cid::random().to_string()),
            heartbeat: Duration::from_millis(settings.heartbeat_ms),
            lapse: Duration::from_millis(settings.lapse_ms),
            retention: Retention { audit },
            held: Arc::default(),
        }
    }

    /// Asks for the lease with every heartbeat, and leads while it has it, until cancelled.
    pub(super) async fn run(self) {
        let mut pause = tokio::time::interval(self.heartbeat);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut purge_at = Instant::now();
        loop {
            pause.tick().await;
            // A renewal that takes longer than the lease lasts is none.
            match tokio::time::timeout(self.lapse, self.take_turn(&mut purge_at)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.stumble(&error.to_string()),
                Err(_) => self.stumble("the operational database does not answer in time"),
            }
        }
    }

    async fn take_turn(&self, purge_at: &mut Instant) -> Result<(), OdbError> {
        if self.standing.membership.is_gone() {
            self.resign().await;
            return Ok(());
        }
        match self.stand().await? {
            Some(lease) => self.lead(&lease, purge_at).await,
            None => {
                self.follow();
                Ok(())
            }
        }
    }

    /// Takes or renews the lease; `None` when it is another's.
    async fn stand(&self) -> Result<Option<Lease>, OdbError> {
        let lease = self.odb.take_lease(LEADER_LEASE, &self.holder, self.lapse).await?;
        if lease.holder != self.holder {
            return Ok(None);
        }
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease.clone());
        if self.standing.membership.lead(true) {
            tracing::info!(fencing = lease.fencing, "this server leads the cluster");
        }
        Ok(Some(lease))
    }

    async fn lead(&self, lease: &Lease, purge_at: &mut Instant) -> Result<(), OdbError> {
        let leader = self.odb.as_leader(lease);
        for server in leader.mark_lapsed(self.lapse).await? {
            tracing::warn!(server, "a server's heartbeats ceased; it counts as dead");
        }
        if Instant::now() >= *purge_at {
            *purge_at = Instant::now() + PURGE_EVERY;
            let purged = leader.purge(&self.retention).await?;
            if !purged.is_nothing() {
                tracing::info!(?purged, "removed what has expired");
            }
        }
        Ok(())
    }

    fn follow(&self) {
        if self.standing.membership.lead(false) {
            tracing::info!("this server leads the cluster no longer");
        }
    }

    fn stumble(&self, reason: &str) {
        if self.standing.membership.lead(false) {
            tracing::warn!(reason, "this server leads the cluster no longer");
        }
    }

    /// Gives the lease up, so that another leads at once.
    pub(super) async fn resign(&self) {
        self.standing.membership.lead(false);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(lease) = held else { return };
        let released = self.odb.release_lease(&lease.name, &lease.holder, lease.fencing);
        // It lapses by itself when nobody hears this.
        let _ = tokio::time::timeout(RESIGNATION, released).await;
    }
}
