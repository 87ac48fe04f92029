//! Users and tokens.

use http::StatusCode;

use crate::access::Role;
use crate::http::call::{Call, Outcome, json, nothing};
use crate::http::table::{Answer, Body, Endpoint, Verb, schema_of};
use crate::operations::{IssuedToken, NewToken, NewUser, TokenView, UserChange, UserView};

pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Verb::Get,
        path: "/users",
        operation: "listUsers",
        summary: "All users.",
        role: Some(Role::Admin),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<UserView>>),
        run: |call| Box::pin(users(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/users",
        operation: "addUser",
        summary: "Makes a user; without a password one is made and shown this once.",
        role: Some(Role::Admin),
        query: None,
        body: Body::Json(schema_of::<NewUser>),
        answer: Answer::Json(schema_of::<UserView>),
        run: |call| Box::pin(add_user(call)),
    },
    Endpoint {
        method: Verb::Patch,
        path: "/users/{name}",
        operation: "changeUser",
        summary: "Changes a user's role or password.",
        role: Some(Role::Admin),
        query: None,
        body: Body::Json(schema_of::<UserChange>),
        answer: Answer::Json(schema_of::<UserView>),
        run: |call| Box::pin(change_user(call)),
    },
    Endpoint {
        method: Verb::Delete,
        path: "/users/{name}",
        operation: "deleteUser",
        summary: "Removes a user and the user's tokens.",
        role: Some(Role::Admin),
        query: None,
        body: Body::None,
        answer: Answer::Nothing,
        run: |call| Box::pin(delete_user(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/tokens",
        operation: "listTokens",
        summary: "All tokens that have not expired.",
        role: Some(Role::Admin),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<TokenView>>),
        run: |call| Box::pin(tokens(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/tokens",
        operation: "issueToken",
        summary: "Makes a token, which is shown this once.",
        role: Some(Role::Admin),
        query: None,
        body: Body::Json(schema_of::<NewToken>),
        answer: Answer::Json(schema_of::<IssuedToken>),
        run: |call| Box::pin(issue_token(call)),
    },
    Endpoint {
        method: Verb::Delete,
        path: "/tokens/{id}",
        operation: "revokeToken",
        summary: "Makes a token worthless.",
        role: Some(Role::Admin),
        query: None,
        body: Body::None,
        answer: Answer::Nothing,
        run: |call| Box::pin(revoke_token(call)),
    },
];

async fn users(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().users().await?)
}

async fn add_user(call: Call) -> Outcome {
    let new: NewUser = call.json()?;
    json(StatusCode::CREATED, &call.operations().add_user(call.caller()?, new).await?)
}

async fn change_user(call: Call) -> Outcome {
    let (name, change): (String, UserChange) = (call.path("name")?, call.json()?);
    json(StatusCode::OK, &call.operations().change_user(call.caller()?, &name, change).await?)
}

async fn delete_user(call: Call) -> Outcome {
    let name: String = call.path("name")?;
    call.operations().delete_user(call.caller()?, &name).await?;
    nothing()
}

async fn tokens(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().tokens().await?)
}

async fn issue_token(call: Call) -> Outcome {
    let new: NewToken = call.json()?;
    json(StatusCode::CREATED, &call.operations().issue_token(call.caller()?, new).await?)
}

async fn revoke_token(call: Call) -> Outcome {
    let id: String = call.path("id")?;
    call.operations().revoke_token(call.caller()?, &id).await?;
    nothing()
}
