//! stub
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::response::ResponseBody;
use crate::routes::Routes;
use crate::server::ConnectionState;

pub(crate) const HEAD_SLACK: usize = 64 * 1024;

pub(crate) struct Peer {
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) address: IpAddr,
    pub(crate) secure: bool,
    pub(crate) state: Arc<ConnectionState>,
}

pub(crate) async fn handle(_peer: Arc<Peer>, _request: Request<Incoming>) -> Response<ResponseBody> {
    std::future::pending().await
}
