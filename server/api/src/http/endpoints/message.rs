//! Kept messages of the answering server.

use http::StatusCode;

use crate::access::Role;
use crate::http::call::{Call, Outcome, json};
use crate::http::table::{Answer, Body, Endpoint, Verb, schema_of};
use crate::operations::{MessageFilter, MessageView, MessagesView, ReplayView};

pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Verb::Get,
        path: "/messages",
        operation: "searchMessages",
        summary: "Messages that the answering server keeps, without their bodies, newest first. Each server is asked for its own.",
        role: Some(Role::Viewer),
        query: Some(schema_of::<MessageFilter>),
        body: Body::None,
        answer: Answer::Json(schema_of::<MessagesView>),
        run: |call| Box::pin(search(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/messages/{id}",
        operation: "getMessage",
        summary: "The messages of a cid, or the one of an id, that the answering server keeps, with bodies and header fields as far as they are kept, oldest first.",
        role: Some(Role::Operator),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<MessageView>>),
        run: |call| Box::pin(show(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/messages/{id}/replay",
        operation: "replayMessage",
        summary: "Sends a message that the answering server keeps through its channel once more, and tells the answer.",
        role: Some(Role::Operator),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<ReplayView>),
        run: |call| Box::pin(replay(call)),
    },
];

async fn search(call: Call) -> Outcome {
    let filter: MessageFilter = call.query()?;
    json(StatusCode::OK, &call.operations().messages(&filter).await?)
}

async fn show(call: Call) -> Outcome {
    let id: String = call.path("id")?;
    json(StatusCode::OK, &call.operations().message(call.caller()?, &id).await?)
}

async fn replay(call: Call) -> Outcome {
    let id: String = call.path("id")?;
    json(StatusCode::OK, &call.operations().replay(call.caller()?, &id, call.trace).await?)
}
