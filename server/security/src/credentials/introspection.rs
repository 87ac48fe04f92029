//! Tokens that their authorization server is asked about (RFC 7662).
//!
//! One question per token at a time, on a task of its own: whoever comes with the same token waits for the same
//! answer, and a caller who leaves does not cut it off. Answers are remembered by the token's hash, good ones
//! no longer than the token lives. When there is no answer nobody is let in: 503.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crosstie_model::definition::{CredentialsIn, Oauth2Introspection};
use crosstie_model::message::Principal;
use crosstie_model::refusal::RefusalReason;
use crosstie_model::secret::SecretValue;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, watch};
use url::form_urlencoded;

use super::authenticator::Verdict;
use super::bearer::BearerScheme;
use super::claims::{ClaimRules, Ends, Unfit};
use super::denial::Denial;
use super::expiring::{Digest, Expiring};
use super::inquirer::{Inquirer, Place, Workshop};
use super::material::{CredentialError, Material};
use super::presented::Presented;

/// When to try again after the authorization server could not be asked.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct IntrospectionCheck {
    scheme: BearerScheme,
    server: Arc<AuthorizationServer>,
}

/// What is known of a token.
type Known = Result<Arc<Principal>, Unfit>;
/// What an answer says; `None` when there is none.
type Answer = Option<Known>;

/// The authorization server, and what it said.
#[derive(Debug)]
struct AuthorizationServer {
    rules: ClaimRules,
    inquirer: Inquirer,
    authorization: Option<HeaderValue>,
    /// What is sent beside the token: how the server shows who it is, where that is not in the header.
    form: SecretValue,
    good_for: i64,
    bad_for: i64,
    deadline: Duration,
    questions: Semaphore,
    /// What the principals of this definition have in common.
    template: Principal,
    state: Mutex<State>,
    is_failing: AtomicBool,
}

#[derive(Debug)]
struct State {
    known: Expiring<Known>,
    /// Questions under way, by token.
    asked: HashMap<Digest, watch::Receiver<Option<Answer>>>,
}

impl IntrospectionCheck {
    pub(super) fn new(
        body: &Oauth2Introspection,
        material: &Material,
        template: Principal,
        workshop: &Workshop<'_>,
    ) -> Result<Self, CredentialError> {
        let deadline = Duration::from_millis(body.deadline_ms);
        let place = Place {
            field: "url",
            address: &body.url,
            tls: body.tls.as_ref(),
            deadline,
            max_bytes: body.max_answer_bytes,
            connections: body.max_concurrency,
        };
        let secret = material.secret("client_secret")?;
        let id = encode(body.client_id.as_bytes());
        let (authorization, form) = match body.credentials_in {
            CredentialsIn::Header => {
                // Both halves are encoded before they become HTTP Basic (RFC 6749, section 2.3.1).
                let text = SecretValue::new(format!("{id}:{}", encode(secret.expose())).into_bytes());
                let field = format!("Basic {}", STANDARD.encode(text.expose()));
                let mut field = HeaderValue::try_from(field)
                    .map_err(|_| CredentialError::field("client_secret", "is too long"))?;
                field.set_sensitive(true);
                (Some(field), String::new())
            }
            CredentialsIn::Body => {
                (None, format!("&client_id={id}&client_secret={}", encode(secret.expose())))
            }
        };
        let permits = usize::try_from(body.max_concurrency).unwrap_or(Semaphore::MAX_PERMITS);
        let entries = usize::try_from(body.cache_entries).unwrap_or(usize::MAX);
        let server = AuthorizationServer {
            rules: ClaimRules::new(&body.rules, &["username", "sub"]),
            inquirer: Inquirer::open(workshop, &place)?,
            authorization,
            form: SecretValue::new(form.into_bytes()),
            good_for: body.cache_s.into(),
            bad_for: body.refused_cache_s.into(),
            deadline,
            questions: Semaphore::new(permits),
            template,
            state: Mutex::new(State { known: Expiring::new(entries), asked: HashMap::new() }),
            is_failing: AtomicBool::new(false),
        };
        Ok(Self { scheme: BearerScheme::new(&body.rules), server: Arc::new(server) })
    }

    /// Checks a request with what is known; `None` when the authorization server has to be asked.
    pub(super) fn decide(&self, presented: &Presented<'_>) -> Option<Verdict> {
        let token = match self.scheme.token(presented.headers) {
            Ok(token) => token,
            Err(denial) => return Some(Err(denial)),
        };
        let digest = Sha256::digest(token).into();
        let known = self.server.lock().known.get(&digest, presented.unix_seconds())?;
        Some(self.verdict(known))
    }

    /// Checks a request, asking the authorization server.
    pub(super) async fn ask(&self, presented: &Presented<'_>) -> Verdict {
        let token = self.scheme.token(presented.headers)?;
        match self.server.answer(token, presented.unix_seconds()).await {
            Some(known) => self.verdict(known),
            None => Err(Denial::unavailable(Some(RETRY_AFTER))),
        }
    }

    fn verdict(&self, known: Known) -> Verdict {
        known.map_err(|unfit| self.scheme.refuse(unfit.reason, unfit.username))
    }
}

impl AuthorizationServer {
    /// What is known of `token`, or what the answer to the question is.
    async fn answer(self: &Arc<Self>, token: &str, now: i64) -> Answer {
        let digest: Digest = Sha256::digest(token).into();
        let mut answered = {
            let mut state = self.lock();
            // Somebody may have asked meanwhile.
            if let Some(known) = state.known.get(&digest, now) {
                return Some(known);
            }
            match state.asked.get(&digest) {
                Some(asked) => asked.clone(),
                None => {
                    let (answer, answered) = watch::channel(None);
                    state.asked.insert(digest, answered.clone());
                    let question = Question { server: Arc::clone(self), digest, now, answer, outcome: None };
                    tokio::spawn(question.run(SecretValue::new(token.as_bytes())));
                    answered
                }
            }
        };
        // The question always ends with an answer, even one that was cut off.
        let answer = answered.wait_for(Option::is_some).await;
        answer.ok().and_then(|answer| answer.clone()).flatten()
    }

    async fn ask(&self, token: &SecretValue) -> Result<Map<String, Value>, String> {
        let permit = tokio::time::timeout(self.deadline, self.questions.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err("too many questions are under way".to_owned()) };
        let mut body = b"token=".to_vec();
        body.extend_from_slice(encode(token.expose()).as_bytes());
        body.extend_from_slice(b"&token_type_hint=access_token");
        body.extend_from_slice(self.form.expose());
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let accept = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, form), (ACCEPT, accept)]);
        if let Some(field) = &self.authorization {
            headers.insert(AUTHORIZATION, field.clone());
        }
        let asked = self.inquirer.ask(Method::POST, headers, Bytes::from(body)).await;
        let (status, answer) = asked.map_err(|error| error.detail)?;
        if status != StatusCode::OK {
            return Err(format!("the authorization server answered {status}"));
        }
        // The parser's error is left out: it may quote what it read.
        serde_json::from_slice(&answer).map_err(|_| "the authorization server's answer is no JSON".to_owned())
    }

    /// What an answer means (section 2.2), and until when it counts.
    fn understand(&self, mut said: Map<String, Value>, now: i64) -> Result<(Known, i64), String> {
        match said.remove("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => {
                let unfit = Unfit { reason: RefusalReason::Revoked, username: None };
                return Ok((Err(unfit), now.saturating_add(self.bad_for)));
            }
            _ => return Err("the authorization server does not say whether the token is active".to_owned()),
        }
        Ok(match self.rules.check(&said, Ends::Perhaps, now) {
            Err(unfit) => (Err(unfit), now.saturating_add(self.bad_for)),
            Ok(accepted) => {
                let mut principal = self.template.clone();
                (principal.username, principal.scopes, principal.claims) =
                    (accepted.username, accepted.scopes, said);
                let end = now.saturating_add(self.good_for);
                (Ok(Arc::new(principal)), accepted.until.map_or(end, |until| until.min(end)))
            }
        })
    }

    /// Tells of the beginning and the end of a failure, not of every question in between.
    fn tell(&self, outcome: Result<(), &str>) {
        let security = &*self.template.definition;
        match outcome {
            Err(reason) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(security, reason, "tokens cannot be checked; their bearers get 503");
            }
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(security, "tokens can be checked again");
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text as forms have it: what need not be encoded is not, as not every server decodes (RFC 6749, appendix B).
fn encode(text: &[u8]) -> String {
    form_urlencoded::byte_serialize(text).collect()
}

/// A question under way. Whatever becomes of it, those who wait learn that it is over.
struct Question {
    server: Arc<AuthorizationServer>,
    digest: Digest,
    now: i64,
    answer: watch::Sender<Option<Answer>>,
    outcome: Answer,
}

impl Question {
    async fn run(mut self, token: SecretValue) {
        let said = self.server.ask(&token).await;
        match said.and_then(|said| self.server.understand(said, self.now)) {
            Ok((known, until)) => {
                self.server.lock().known.insert(self.digest, known.clone(), until);
                self.server.tell(Ok(()));
                self.outcome = Some(known);
            }
            Err(reason) => self.server.tell(Err(&reason)),
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.server.lock().asked.remove(&self.digest);
        let _ = self.answer.send(Some(self.outcome.take()));
    }
}

#[cfg(test)]
mod tests;
