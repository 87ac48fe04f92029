//! Another system that says what a test wants, and counts how often it was asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::Snapshot;
use crosstie_model::definition::{DefinitionName, HttpEndpoint, OutgoingFormat};
use crosstie_model::inquiry::Inquiries;
use crosstie_model::outgoing::{
    CallBody, Connection, ExpandError, HttpAnswer, HttpCall, HttpOutgoing, OutgoingError, Ping, Pong, Trouble,
};
use http::{HeaderMap, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::Semaphore;

/// See the module.
#[derive(Debug)]
pub(super) struct Oracle {
    answers: Mutex<VecDeque<Option<(StatusCode, String)>>>,
    asked: AtomicUsize,
    pub(super) questions: Mutex<Vec<(HeaderMap, String, String)>>,
    /// Answers go out as permits come in.
    pub(super) gate: Semaphore,
    pub(super) endpoints: Mutex<Vec<HttpEndpoint>>,
}

impl Oracle {
    /// One that answers at once; the last of `answers` for ever. `None` is no answer.
    pub(super) fn new(answers: impl IntoIterator<Item = Option<(u16, String)>>) -> Arc<Self> {
        let answers = answers
            .into_iter()
            .map(|answer| answer.map(|(status, text)| (StatusCode::from_u16(status).unwrap(), text)));
        Arc::new(Self {
            answers: Mutex::new(answers.collect()),
            asked: AtomicUsize::new(0),
            questions: Mutex::default(),
            gate: Semaphore::new(1_000_000),
            endpoints: Mutex::default(),
        })
    }

    /// What it answers from now on.
    pub(super) fn says(&self, answer: Option<(u16, String)>) {
        let answer = answer.map(|(status, text)| (StatusCode::from_u16(status).unwrap(), text));
        *self.answers.lock().unwrap() = VecDeque::from([answer]);
    }

    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The way that was opened to it.
#[derive(Debug)]
pub(super) struct Way(pub(super) Arc<Oracle>);

impl Inquiries for Way {
    fn open(
        &self,
        _: &DefinitionName,
        endpoint: &HttpEndpoint,
        _: &Snapshot,
    ) -> Result<Arc<dyn HttpOutgoing>, String> {
        self.0.endpoints.lock().unwrap().push(endpoint.clone());
        Ok(Arc::new(Self(Arc::clone(&self.0))))
    }
}

#[async_trait]
impl Connection for Way {
    fn name(&self) -> &str {
        "oracle"
    }

    async fn ping(&self, _: Ping) -> Result<Pong, OutgoingError> {
        Err(OutgoingError::new(Trouble::Closed, "nobody pings"))
    }
}

#[async_trait]
impl HttpOutgoing for Way {
    fn data_format(&self) -> OutgoingFormat {
        OutgoingFormat::Raw
    }

    fn base_path(&self) -> &str {
        ""
    }

    fn target(&self, _: &[(String, String)], _: &[(String, String)]) -> Result<String, ExpandError> {
        Ok("/".to_owned())
    }

    async fn send(&self, call: HttpCall) -> Result<HttpAnswer, OutgoingError> {
        let oracle = &self.0;
        oracle.asked.fetch_add(1, Ordering::SeqCst);
        let body = match call.body {
            CallBody::Full(body) => String::from_utf8(body.to_vec()).unwrap(),
            _ => String::new(),
        };
        oracle.questions.lock().unwrap().push((call.headers, call.target, body));
        oracle.gate.acquire().await.unwrap().forget();
        let answer = {
            let mut answers = oracle.answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front().unwrap() } else { answers.front().unwrap().clone() }
        };
        let Some((status, text)) = answer else {
            return Err(OutgoingError::new(Trouble::Connect, "nobody answers"));
        };
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
        Ok(HttpAnswer { status, version: Version::HTTP_11, headers: HeaderMap::new(), body: Box::pin(body) })
    }
}
