//! The way of one call to its answer: redirects around repetitions around exchanges.

use std::time::{Duration, Instant, SystemTime};

use crosstie_model::outgoing::{OutgoingError, Trouble};
use crosstie_telemetry::traces::AttributeValue;
use http::StatusCode;
use http::header::AUTHORIZATION;

use super::body::SendBody;
use super::client::HttpClient;
use super::connect::{Connector, Tls};
use super::exchange::{Failed, Inbound, Keep, Outbound, Progress, Reached, exchange, exchange_once};
use super::origin::Origin;
use super::redirect::{self, MAX_REDIRECTS};
use super::retry::{retry_after, spread};
use crate::observe::Observed;

/// Where a request goes.
enum Place {
    /// To the definition's origin, with its connections and credentials.
    Home,
    /// Elsewhere, with neither.
    Elsewhere(Box<Connector>),
}

/// What a try came to.
enum Next {
    /// This is the answer.
    Give(Inbound),
    /// Another try, after a pause.
    Again(Duration),
}

impl HttpClient {
    /// Sends `request` wherever it leads, as often as it takes and may.
    pub(super) async fn follow(
        &self,
        mut request: Outbound,
        deadline: Instant,
        observed: &mut Observed,
        progress: &Progress,
    ) -> Result<Inbound, OutgoingError> {
        let home = &self.connector.origin;
        let (mut place, mut here) = (Place::Home, home.clone());
        for _ in 0..=MAX_REDIRECTS {
            let inbound = self.repeat(&mut request, &place, deadline, observed, progress).await?;
            let (status, headers) = (inbound.response.status(), inbound.response.headers());
            let (method, target) = (&request.method, request.target.as_str());
            let hop = redirect::next(self.redirects, home, &here, method, target, status, headers)?;
            let onward = hop.and_then(|hop| Some((redirect::onward(&request, &hop, home)?, hop)));
            let Some((onward, hop)) = onward else { return Ok(inbound) };
            request = onward;
            place = if hop.origin.is_same(home) {
                Place::Home
            } else {
                Place::Elsewhere(Box::new(self.elsewhere(&hop.origin)?))
            };
            here = hop.origin;
        }
        Err(OutgoingError::new(
            Trouble::Redirect,
            format!("{here} redirects more than {MAX_REDIRECTS} times"),
        ))
    }

    /// Connections to another origin: trusted as this one is, without the client's certificate.
    fn elsewhere(&self, origin: &Origin) -> Result<Connector, OutgoingError> {
        let unusable = |detail: String| OutgoingError::new(Trouble::Redirect, detail);
        let tls = match (&self.foreign_tls, origin.is_tls()) {
            (_, false) => None,
            (Some(config), true) => {
                let name = origin.server_name().map_err(unusable)?;
                Some(Tls { config: config.clone(), name })
            }
            (None, true) => return Err(unusable(format!("{origin} needs TLS, which is not configured"))),
        };
        Ok(Connector { origin: origin.clone(), tls, ..self.connector.clone() })
    }

    async fn repeat(
        &self,
        request: &mut Outbound,
        place: &Place,
        deadline: Instant,
        observed: &mut Observed,
        progress: &Progress,
    ) -> Result<Inbound, OutgoingError> {
        let is_safe = self.retry.is_repeatable(&request.method);
        let is_whole = !matches!(request.body, SendBody::Pieces(_));
        let keep = match is_whole && (is_safe || self.credentials.is_renewable() || self.follows()) {
            true => Keep::Yes,
            false => Keep::No,
        };
        let mut was_renewed = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let (tried, presented) = self.one_try(request, place, keep, progress).await;
            if let Ok(inbound) = &tried
                && inbound.response.status() == StatusCode::UNAUTHORIZED
                && !was_renewed
                && keep == Keep::Yes
                && self.credentials.refused(presented.as_ref())
            {
                // The request was refused, so that it can be sent again whatever it asks for.
                was_renewed = true;
                continue;
            }
            match self.judge_try(tried, tries, is_safe && is_whole, keep, deadline)? {
                Next::Give(inbound) => return Ok(inbound),
                Next::Again(pause) => {
                    self.observer.metrics().retried();
                    observed.attribute("http.request.resend_count", || AttributeValue::Int(i64::from(tries)));
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// One try, and the Authorization field it went out with.
    async fn one_try(
        &self,
        request: &mut Outbound,
        place: &Place,
        keep: Keep,
        progress: &Progress,
    ) -> (Result<Inbound, Failed>, Option<http::HeaderValue>) {
        let (name, metrics) = (self.observer.name(), self.observer.metrics());
        if let Place::Elsewhere(connector) = place {
            return (exchange_once(name, request, keep, connector, metrics, progress).await, None);
        }
        let target = request.target.clone();
        progress.for_credentials();
        if let Err(error) = self.credentials.present(&mut request.headers, &mut request.target).await {
            return (Err(Failed { error, reached: Reached::Pointless }), None);
        }
        let presented =
            request.headers.get(AUTHORIZATION).filter(|_| self.credentials.is_renewable()).cloned();
        let tried = exchange(name, request, keep, &self.pool, &self.connector, metrics, progress).await;
        // A key in the query is of this try alone: the target may be shown, and is the base of redirects.
        request.target = target;
        (tried, presented)
    }

    /// Whether what a try came to is the call's result.
    fn judge_try(
        &self,
        tried: Result<Inbound, Failed>,
        tries: u32,
        is_safe: bool,
        keep: Keep,
        deadline: Instant,
    ) -> Result<Next, OutgoingError> {
        let now = Instant::now();
        let pause = |wish| {
            let pause = self.retry.next(tries, wish, spread(), now)?;
            (now + pause < deadline).then_some(pause)
        };
        match tried {
            Ok(inbound) => {
                let is_hopeful = is_safe && self.retry.is_hopeful(inbound.response.status());
                let wish = retry_after(inbound.response.headers(), SystemTime::now());
                let pause = if is_hopeful { pause(wish) } else { None };
                Ok(pause.map_or(Next::Give(inbound), Next::Again))
            }
            Err(Failed { error, reached }) => {
                let may = match reached {
                    Reached::No => true,
                    Reached::Maybe => is_safe && keep == Keep::Yes,
                    Reached::Pointless => false,
                };
                let pause = if may { pause(None) } else { None };
                pause.map(Next::Again).ok_or(error)
            }
        }
    }
}
