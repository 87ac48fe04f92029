//! Certificates, and servers that join.

use http::StatusCode;

use crate::access::Role;
use crate::http::call::{Call, Outcome, Wait, json};
use crate::http::problem::Problem;
use crate::http::table::{Answer, Body, Endpoint, Verb, schema_of};
use crate::operations::{
    AuthorityView, CertificateOrder, CertificateView, IssuedCertificateView, JoinAnswer, JoinRefused,
    JoinRequest, JoinTokenOrder, JoinTokenView,
};

pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Verb::Get,
        path: "/ca",
        operation: "getAuthority",
        summary: "The certificate of the cluster's authority.",
        role: None,
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<AuthorityView>),
        run: |call| Box::pin(authority(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/certificates",
        operation: "listCertificates",
        summary: "Certificates that the cluster's authority issued.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<CertificateView>>),
        run: |call| Box::pin(certificates(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/certificates",
        operation: "issueCertificate",
        summary: "Signs a component's request; its key stays with it.",
        role: Some(Role::Admin),
        query: None,
        body: Body::Json(schema_of::<CertificateOrder>),
        answer: Answer::Json(schema_of::<IssuedCertificateView>),
        run: |call| Box::pin(issue(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/certificates/{serial}/revoke",
        operation: "revokeCertificate",
        summary: "Makes a certificate worthless before its end, for good.",
        role: Some(Role::Admin),
        query: Some(schema_of::<Wait>),
        body: Body::None,
        answer: Answer::Change(schema_of::<CertificateView>),
        run: |call| Box::pin(revoke(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/join-tokens",
        operation: "issueJoinToken",
        summary: "Makes a token with which one server can join, which is shown this once.",
        role: Some(Role::Admin),
        query: None,
        body: Body::Json(schema_of::<JoinTokenOrder>),
        answer: Answer::Json(schema_of::<JoinTokenView>),
        run: |call| Box::pin(token(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/join",
        operation: "join",
        summary: "Lets a server in that shows a token, which is used up by it.",
        role: None,
        query: None,
        body: Body::Json(schema_of::<JoinRequest>),
        answer: Answer::Json(schema_of::<JoinAnswer>),
        run: |call| Box::pin(join(call)),
    },
];

async fn authority(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().authority_certificate().await?)
}

async fn certificates(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().certificates().await?)
}

async fn issue(call: Call) -> Outcome {
    let order: CertificateOrder = call.json()?;
    json(StatusCode::CREATED, &call.operations().issue_certificate(call.caller()?, order).await?)
}

async fn revoke(call: Call) -> Outcome {
    let serial: String = call.path("serial")?;
    let own = call.peer.serial.as_deref();
    let (revision, view) = call.operations().revoke_certificate(call.intent()?, own, &serial).await?;
    call.served(StatusCode::OK, revision, &[], &view).await
}

async fn token(call: Call) -> Outcome {
    let order: JoinTokenOrder = call.json()?;
    json(StatusCode::CREATED, &call.operations().issue_join_token(call.caller()?, order).await?)
}

/// Whoever shows a wrong token is slowed down like one who guesses passwords.
async fn join(call: Call) -> Outcome {
    call.api.gate.check_stranger(&call.peer)?;
    let request: JoinRequest = call.json()?;
    match call.operations().join(request).await {
        Ok(answer) => json(StatusCode::CREATED, &answer),
        Err(JoinRefused::Other(error)) => Err(error.into()),
        Err(JoinRefused::Token) => {
            call.api.gate.charge_stranger(&call.peer)?;
            tracing::warn!(address = %call.peer.address, "a server showed a token for joining that is not good");
            Err(Problem::forbidden("the token is not good: it is unknown, over, or was used already"))
        }
    }
}
