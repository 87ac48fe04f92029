//! What is known about the connection, for `status` and the metrics.

use std::time::SystemTime;

/// What is known about the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusState {
    /// Whether the broker is connected and this server's queue listens.
    pub connected: bool,
    /// Since when it has been so.
    pub since: SystemTime,
    /// Why it last was not; kept while connected.
    pub last_error: Option<String>,
    /// Why the broker takes no messages just now, such as a memory alarm. What should be sent waits, as the
    /// newest revision alone.
    pub blocked: Option<String>,
    /// What went over it.
    pub counts: BusCounts,
}

/// What went over the bus since [`crate::Bus::start`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BusCounts {
    /// Connections made.
    pub connections: u64,
    /// Notices that the broker confirmed.
    pub sent: u64,
    /// Notices of other servers.
    pub received: u64,
    /// Messages that no server wrote, dropped.
    pub unreadable: u64,
}

impl BusState {
    /// Before the first attempt.
    pub(crate) fn starting() -> Self {
        Self {
            connected: false,
            since: SystemTime::now(),
            last_error: None,
            blocked: None,
            counts: BusCounts::default(),
        }
    }

    /// Notes a connection.
    pub(crate) fn up(&mut self) {
        self.connected = true;
        self.since = SystemTime::now();
        self.counts.connections += 1;
    }

    /// Notes that there is none, and why. Gives whether there was one, or no attempt before this.
    pub(crate) fn down(&mut self, reason: String) -> bool {
        let is_news = self.connected || self.last_error.is_none();
        if self.connected {
            self.since = SystemTime::now();
        }
        self.connected = false;
        self.blocked = None;
        self.last_error = Some(reason);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_failure_in_a_row_is_news_and_dates_the_outage() {
        let mut state = BusState::starting();
        assert!(state.down("refused".into()));
        let since = state.since;
        assert!(!state.down("refused again".into()));
        assert_eq!((state.since, state.last_error.as_deref()), (since, Some("refused again")));
        state.up();
        state.blocked = Some("low on memory".into());
        assert!(state.connected && state.last_error.is_some() && state.counts.connections == 1);
        assert!(state.down("gone".into()));
        assert_eq!(state.blocked, None);
    }
}
