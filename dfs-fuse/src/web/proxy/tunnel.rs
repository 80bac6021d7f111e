//! CONNECT: a client speaks to somebody through us. Where an operator wants that looked into, we stand in that one's place.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dfs_service::net;
use dfs_source::{Activity, Unreached};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};

use super::asked::Refusal;
use super::place::Authority;
use super::{Client, Proxy};
use crate::web::answer::{Body, nothing};

/// Where tunnels lead to where nothing else is named.
const USUAL: u16 = 443;

impl Proxy {
    /// Answers who wants to speak to somebody.
    pub(super) async fn connect(
        &self,
        client: Client,
        to: Authority,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        self.may_be_tunnelled_to(&to)?;
        self.check_place(client, &to).await?;
        let upgrade = hyper::upgrade::on(&mut request);
        if self.0.rules.intercepts(&to) {
            self.0.counts.intercepted.fetch_add(1, Ordering::Relaxed);
            let stood_in = self.clone().stand_in(client, to, upgrade);
            self.0.tunnels.spawn(stood_in);
            return Ok(Response::new(nothing()));
        }
        let reached = net::reached(to.bare(), to.port, client.reach()).await;
        let stream = reached.map_err(|error| unreached(&to, error))?;
        self.0.counts.tunnels.fetch_add(1, Ordering::Relaxed);
        self.0.tunnels.spawn(self.clone().carry(client.from, to, (upgrade, stream)));
        Ok(Response::new(nothing()))
    }

    fn may_be_tunnelled_to(&self, to: &Authority) -> Result<(), Refusal> {
        let is_named = self.0.options.allow.iter().any(|place| place.names_port(to));
        match to.port == USUAL || is_named || self.0.rules.names_port(to) {
            true => Ok(()),
            false => Err(Refusal::Port(to.clone())),
        }
    }

    async fn carry(
        self,
        from: SocketAddr,
        to: Authority,
        (upgrade, stream): (OnUpgrade, tokio::net::TcpStream),
    ) {
        let _busy = self.0.agent.enter();
        let activity = Arc::new(Activity::default());
        let carrying = async {
            let client = net::upgraded(upgrade).await?;
            net::tunnel(client, stream, &activity).await
        };
        let ended = self.0.stop.run_until_cancelled(carrying).await;
        self.0.counts.tunnelled.fetch_add(activity.bytes(), Ordering::Relaxed);
        if let Some(Err(error)) = ended {
            tracing::debug!(%from, %to, %error, "a tunnel broke");
        }
    }

    async fn stand_in(self, client: Client, to: Authority, upgrade: OnUpgrade) {
        let _busy = self.0.agent.enter();
        let (proxy, place, stop) = (self.clone(), to.clone(), self.0.stop.clone());
        let serving = async {
            let stand_in = self.0.stand_in.as_ref().ok_or(io::ErrorKind::Unsupported)?;
            let stream = stand_in.accept(to.bare(), net::upgraded(upgrade).await?).await?;
            let answer = move |request| {
                let (proxy, place) = (proxy.clone(), place.clone());
                async move { proxy.answer_within(client, place, request).await }
            };
            net::serve_http_over(stream, answer, stop).await
        };
        if let Err(error) = serving.await {
            tracing::debug!(from = %client.from, %to, %error, "a connection of a client broke");
        }
    }
}

fn unreached(to: &Authority, error: io::Error) -> Refusal {
    match error.get_ref().is_some_and(|inside| inside.is::<Unreached>()) {
        true => Refusal::Address(to.clone()),
        false => Refusal::Unreached(to.clone(), error.to_string()),
    }
}
