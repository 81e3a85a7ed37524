//! Browsers of a portal that runs in this process: requests go through everything that the server puts around its pages, only not through a
//! network.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use actions::{Ctx, Login};
use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::{Router, http};
use http::{Request, StatusCode, header};
use serde_json::Value;
use server::http::Portal;
use server::http::limits::Limits;
use server::sessions::Sessions;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tower_sessions::SessionStore as _;
use tower_sessions::session::{Id, Record};

/// Where `scripts/build.sh` puts what browsers fetch.
pub(crate) const SITE: &str = "target/site";
const HOST: &str = "portal.example";

/// Somebody's browser.
#[derive(Clone)]
pub(crate) struct Browser {
    router: Router,
    address: IpAddr,
    cookie: Option<String>,
}

/// A portal with the built files.
pub(crate) fn portal(ctx: &Ctx, limits: Limits) -> Router {
    server::http::router(Portal {
        ctx: ctx.clone(),
        origin: format!("http://{HOST}"),
        secure_cookies: false,
        trusted_proxies: Vec::new(),
        site: SITE.into(),
        limits,
        stopping: CancellationToken::new(),
    })
}

impl Browser {
    /// Nobody yet, from an address.
    pub(crate) fn new(router: &Router, address: IpAddr) -> Self {
        Self { router: router.clone(), address, cookie: None }
    }

    /// Signed in.
    pub(crate) async fn signed_in(self, ctx: &Ctx, login: &Login) -> anyhow::Result<Self> {
        let mut session = Record { id: Id::default(), data: HashMap::new(), expiry_date: ctx.now() };
        session.data.insert(app::context::LOGIN.to_owned(), serde_json::to_value(login)?);
        session.data.insert(app::context::BEGAN.to_owned(), ctx.now().unix_timestamp().into());
        Sessions::new(ctx.clone()).create(&mut session).await?;
        Ok(Self { cookie: Some(format!("ringfence={}", session.id)), ..self })
    }

    /// The same session from another address, whose requests are counted apart.
    pub(crate) fn moved(&self, address: IpAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The same browser without its session.
    pub(crate) fn signed_out(&self) -> Self {
        Self { cookie: None, ..self.clone() }
    }

    /// A file or page, in an encoding.
    pub(crate) async fn get(&self, path: &str, encoding: &str) -> anyhow::Result<Vec<u8>> {
        let (status, _, body) =
            self.send(Request::get(path).header(header::ACCEPT_ENCODING, encoding), String::new()).await?;
        anyhow::ensure!(status == StatusCode::OK, "{path}: {status}");
        Ok(body)
    }

    /// Calls a server function; keeps the session that it begins.
    pub(crate) async fn call(&mut self, function: &str, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
        let request = Request::post(format!("/api/{function}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::ORIGIN, format!("http://{HOST}"))
            .header("sec-fetch-site", "same-origin");
        let (status, cookie, answer) = self.send(request, body.to_string()).await?;
        self.cookie = cookie.or(self.cookie.take());
        Ok((status, serde_json::from_slice(&answer).unwrap_or(Value::Null)))
    }

    async fn send(
        &self,
        mut request: http::request::Builder,
        body: String,
    ) -> anyhow::Result<(StatusCode, Option<String>, Vec<u8>)> {
        request = request.header(header::HOST, HOST);
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let mut request = request.body(Body::from(body))?;
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((self.address, 4711))));
        let response = self.router.clone().oneshot(request).await?;
        let (status, cookie) = (response.status(), response.headers().get(header::SET_COOKIE).cloned());
        let cookie = cookie.map(|cookie| cookie.to_str().map(str::to_owned)).transpose().context("a cookie")?;
        let cookie = cookie.and_then(|cookie| Some(cookie.split(';').next()?.to_owned()));
        Ok((status, cookie, to_bytes(response.into_body(), usize::MAX).await?.to_vec()))
    }
}
