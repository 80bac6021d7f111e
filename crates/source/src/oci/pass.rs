//! What a client of a registry asks, passed on as it is: status, head and body of the answer are the registry's own.
//!
//! Who asks shows what proves it, and nothing else is shown in its place: no login that is kept here. Who shows nothing is
//! nobody, and has the token that a registry gives to everybody. Where that does not open it the answer is the
//! registry's refusal, with what it wants of who asks. Nothing is asked twice.

use std::sync::Arc;

use reqwest::header::{HeaderMap, HeaderValue, VIA, WWW_AUTHENTICATE};

use super::docker_auth::user_and_password;
use super::place::Place;
use super::{ContentDigest, OciSource, Reference, challenge, unusable};
use crate::http::PassedAnswer;
use crate::http::exchange::Ask;
use crate::{Action, Attempt, Credentials, SourceError, Target};

/// How requests that are passed on are known.
pub const PASSED_ON: &str = "1.1 dfs-mirror";

/// What of a registry is sought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// Whether it speaks the protocol, and what it wants of who asks.
    Ping,
    /// What the reference names.
    Named,
    /// The tags of the repository; and the query with it.
    Tags(String),
    /// What refers to a manifest of it; and the query with it.
    Referrers(ContentDigest, String),
}

/// How much of an answer is sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Its head.
    Head,
    /// All of it.
    All,
}

/// A request that is passed on.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Where: a registry and a repository in it.
    pub reference: Reference,
    /// What.
    pub sought: Sought,
    /// How much of it.
    pub extent: Extent,
    /// What the client says besides.
    pub headers: HeaderMap,
    /// What the client shows.
    pub login: Credentials,
}

impl Passed {
    /// By what path it is asked for of the registry where it is.
    fn path(&self, at: &Reference) -> String {
        let name = at.repository();
        let asked = |path: String, query: &str| match query.is_empty() {
            true => path,
            false => format!("{path}?{query}"),
        };
        match &self.sought {
            Sought::Ping => "/v2/".to_owned(),
            Sought::Named => at.path(),
            Sought::Tags(query) => asked(format!("/v2/{name}/tags/list"), query),
            Sought::Referrers(digest, query) => {
                asked(format!("/v2/{name}/referrers/{digest}"), query)
            }
        }
    }

    fn ask(&self) -> Ask {
        let mut ask = match self.extent {
            Extent::Head => Ask::head(),
            Extent::All => Ask::whole(),
        };
        ask.headers = self.headers.clone();
        ask.headers.insert(VIA, HeaderValue::from_static(PASSED_ON));
        ask
    }
}

impl OciSource {
    /// How it is asked for what this names, `http` or `https`: where it is. What is blocked is not asked for.
    pub fn scheme(&self, reference: &Reference) -> &'static str {
        let named = || Place { reference: reference.clone(), is_insecure: false };
        let place = self.mirrors.places(reference).map_or_else(|_| named(), |found| found.location);
        place.scheme(&self.access.plain)
    }

    /// Asks what a client asks, where `registries.conf` says that it is. Mirrors are not asked: the answer is the registry's.
    pub async fn pass(&self, passed: &Passed) -> Result<PassedAnswer, SourceError> {
        let access = &self.access;
        let reference = &passed.reference;
        let attempt = Attempt::new(Action::Read(None), &reference.url());
        let places = self.mirrors.places(reference);
        let place = places.map_err(|reason| unusable(&reference.url(), reason))?.location;
        let url = place.url(&passed.path(&place.reference), &access.plain)?;
        let ask = passed.ask();
        let given = |answer| PassedAnswer::new(answer, Arc::clone(&access.web), attempt.clone());
        let is_nobody = passed.login.is_none();
        let known = access.known(&place, &passed.login).filter(|_| is_nobody);
        let shown = known.as_ref().map_or(&passed.login, |granted| &granted.credentials);
        let target = Target { credentials: shown.clone(), ..Target::new(url.clone()) };
        let answer = access.web.exchange(&target, &ask, &attempt).await?;
        let is_its_own = answer.url.origin() == url.url().origin();
        if answer.status() != 401 || !is_nobody || !is_its_own || passed.sought == Sought::Ping {
            return Ok(given(answer));
        }
        let wanted = answer.headers().get_all(WWW_AUTHENTICATE);
        let wanted = challenge::parse(wanted.iter().filter_map(|value| value.to_str().ok()));
        let asking = (&place, &passed.login);
        // Where a token cannot be had the client may know better: it is told what the registry wants.
        let Ok(Some(granted)) = access.grant(asking, &wanted, known.as_ref(), &attempt).await
        else {
            return Ok(given(answer));
        };
        drop(answer);
        let target = Target { credentials: granted.credentials, ..Target::new(url) };
        Ok(given(access.web.exchange(&target, &ask, &attempt).await?))
    }
}

/// What a client shows in its `Authorization`: as it is where it is of no known kind.
pub fn login_of(authorization: &str) -> Credentials {
    let (scheme, rest) = authorization.trim().split_once(' ').unwrap_or((authorization, ""));
    let rest = rest.trim();
    match scheme {
        _ if rest.is_empty() => {}
        "Bearer" | "bearer" => return Credentials::Bearer(rest.into()),
        "Basic" | "basic" => {
            if let Ok((user, password)) = user_and_password(rest) {
                return Credentials::Basic { user, password };
            }
        }
        _ => {}
    }
    Credentials::None.with_header("authorization", authorization.into())
}

#[cfg(test)]
mod tests {
    use dfs_model::CanonicalUrl;

    use super::*;

    fn passed(sought: Sought) -> Passed {
        let url = CanonicalUrl::parse("oci://registry.test/team/app:1").unwrap();
        Passed {
            reference: Reference::of(&url).unwrap(),
            sought,
            extent: Extent::All,
            headers: HeaderMap::new(),
            login: Credentials::None,
        }
    }

    #[test]
    fn each_question_has_its_path() {
        let digest = ContentDigest::sha256(b"");
        for (sought, path) in [
            (Sought::Ping, "/v2/".to_owned()),
            (Sought::Named, "/v2/team/app/manifests/1".to_owned()),
            (Sought::Tags(String::new()), "/v2/team/app/tags/list".to_owned()),
            (Sought::Tags("n=2&last=a".to_owned()), "/v2/team/app/tags/list?n=2&last=a".to_owned()),
            (Sought::Referrers(digest, String::new()), format!("/v2/team/app/referrers/{digest}")),
        ] {
            let passed = passed(sought);
            assert_eq!(passed.path(&passed.reference), path);
        }
    }

    #[test]
    fn what_a_client_shows_goes_on_as_it_was_shown() {
        for shown in ["Bearer abc.def", "Basic YWRhOmh1bnRlcjI=", "Negotiate xyz", "nonsense"] {
            let login = login_of(shown);
            let headers = login.headers();
            assert_eq!((headers.len(), headers[0].1.expose()), (1, shown));
            assert!(!format!("{login:?}").contains("hunter2"));
        }
        assert!(matches!(login_of("Basic YWRhOmh1bnRlcjI="), Credentials::Basic { .. }));
        assert!(matches!(login_of("Bearer t"), Credentials::Bearer(_)));
    }
}
