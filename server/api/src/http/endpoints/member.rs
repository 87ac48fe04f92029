//! The servers of the cluster.

use crosstie_odb::Wanted;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::access::Role;
use crate::http::call::{Call, Outcome, json, nothing};
use crate::http::table::{Answer, Body, Endpoint, Verb, schema_of};
use crate::operations::{MemberView, Removal};

pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Verb::Get,
        path: "/members",
        operation: "listMembers",
        summary: "The servers of the cluster.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<MemberView>>),
        run: |call| Box::pin(members(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/members/{name}",
        operation: "getMember",
        summary: "One server of the cluster.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<MemberView>),
        run: |call| Box::pin(member(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/members/{name}/drain",
        operation: "drainMember",
        summary: "Takes a server out of service: it gets no new requests and finishes those it has.",
        role: Some(Role::Operator),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<MemberView>),
        run: |call| Box::pin(want(call, Wanted::Drained)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/members/{name}/undrain",
        operation: "undrainMember",
        summary: "Takes a server back into service.",
        role: Some(Role::Operator),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<MemberView>),
        run: |call| Box::pin(want(call, Wanted::Serving)),
    },
    Endpoint {
        method: Verb::Delete,
        path: "/members/{name}",
        operation: "removeMember",
        summary: "Forgets a server that was stopped.",
        role: Some(Role::Admin),
        query: Some(schema_of::<WhichToRemove>),
        body: Body::None,
        answer: Answer::Nothing,
        run: |call| Box::pin(remove(call)),
    },
];

/// Which servers may be removed.
#[derive(Deserialize, JsonSchema)]
struct WhichToRemove {
    /// Also one that still runs, when it has drained; it is back when it is started again.
    #[serde(default)]
    drained: bool,
}

async fn members(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().members().await?)
}

async fn member(call: Call) -> Outcome {
    let name: String = call.path("name")?;
    json(StatusCode::OK, &call.operations().member(&name).await?)
}

async fn want(call: Call, wanted: Wanted) -> Outcome {
    let name: String = call.path("name")?;
    json(StatusCode::OK, &call.operations().want_member(call.caller()?, &name, wanted).await?)
}

async fn remove(call: Call) -> Outcome {
    let name: String = call.path("name")?;
    let WhichToRemove { drained } = call.query()?;
    let removal = if drained { Removal::Drained } else { Removal::Stopped };
    call.operations().remove_member(call.caller()?, &name, removal).await?;
    nothing()
}
