//! For whom there is a proxy, what it needs for that, and why there is none.

use std::net::SocketAddr;
use std::path::PathBuf;

use dfs_service::tls::{StandIn, StandInError};
use dfs_source::{Reach, SourceError, any_origin};

use super::client::beyond_this_machine;
use super::place::Place;
use super::rules::{Rules, RulesError};
use super::users::{Users, UsersError};
use crate::web::MirrorError;
use crate::web::clients::Network;

/// For whom there is a proxy, and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// File of rules.
    pub rules: Option<PathBuf>,
    /// Files of the authority that signs in the place of hosts that rules name.
    pub ca_cert: Option<PathBuf>,
    /// Its key.
    pub ca_key: Option<PathBuf>,
    /// Networks of other machines that may ask.
    pub clients: Vec<Network>,
    /// File of names and passwords.
    pub users: Option<PathBuf>,
    /// Where clients may go; anywhere where nothing is named.
    pub allow: Vec<Place>,
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Others could reach it, and nothing says who may, and what.
    #[error(
        "refusing to be a proxy on {listen}: others can reach it; name the networks that may ask \
         (--proxy-client 10.0.0.0/8), and who has a password (--proxy-users FILE) or where they may go \
         (--proxy-allow HOST), or listen on loopback (127.0.0.1 or ::1)"
    )]
    Open {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// A certificate without a key, or a key without one.
    #[error(
        "the authority of the proxy is a certificate and its key: name both (--proxy-ca-cert FILE --proxy-ca-key FILE)"
    )]
    HalfAnAuthority,
    /// Nothing to look into connections with.
    #[error(
        "{} has connections to {hosts} looked into, and no authority that clients trust for that: name one \
         (--proxy-ca-cert FILE --proxy-ca-key FILE), or take `intercept` out of it",
        rules.display()
    )]
    NoAuthority {
        /// The file of rules.
        rules: PathBuf,
        /// Hosts that are to be looked into.
        hosts: String,
    },
    /// The rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Who may ask.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The authority.
    #[error("the authority of the proxy cannot be used")]
    Authority(#[from] StandInError),
    /// There is no mirror to answer by.
    #[error("a rule of the proxy is for registries")]
    Mirror(#[from] MirrorError),
    /// How origins are asked.
    #[error(transparent)]
    Origins(#[from] SourceError),
}

impl ProxyError {
    /// Whether it is for who started the process to mend.
    pub fn is_of_usage(&self) -> bool {
        !matches!(self, Self::Origins(_) | Self::Mirror(_))
    }
}

impl ProxyOptions {
    /// Where the engine may be led, which does not know on whose behalf it asks: with clients of other machines no name and
    /// no redirect leads to this one.
    pub fn reach_of_engine(&self) -> Reach {
        match self.clients.is_empty() {
            true => Reach::default(),
            false => Reach { named: any_origin, led_to: beyond_this_machine },
        }
    }

    /// All that they name, read and understood.
    pub fn prepared(self) -> Result<Prepared, ProxyError> {
        self.check()?;
        let (rules, stand_in) = (self.rules()?, self.stand_in()?);
        let users = self.users.as_deref().map(Users::load).transpose()?;
        Ok(Prepared { options: self, rules, stand_in, users })
    }

    /// Whether it is nobody's open proxy.
    fn check(&self) -> Result<(), ProxyError> {
        if self.ca_cert.is_some() != self.ca_key.is_some() {
            return Err(ProxyError::HalfAnAuthority);
        }
        let is_ours = self.listen.ip().to_canonical().is_loopback();
        let goes_anywhere = self.allow.is_empty() || self.allow.iter().any(Place::is_everywhere);
        let is_bounded = !self.clients.is_empty() && (self.users.is_some() || !goes_anywhere);
        match is_ours || is_bounded {
            true => Ok(()),
            false => Err(ProxyError::Open { listen: self.listen }),
        }
    }

    fn rules(&self) -> Result<Rules, ProxyError> {
        let Some(file) = &self.rules else { return Ok(Rules::default()) };
        let rules = Rules::load(file)?;
        match rules.intercepted() {
            Some(hosts) if self.ca_cert.is_none() => {
                Err(ProxyError::NoAuthority { rules: file.clone(), hosts })
            }
            _ => Ok(rules),
        }
    }

    fn stand_in(&self) -> Result<Option<StandIn>, ProxyError> {
        let files = self.ca_cert.as_ref().zip(self.ca_key.as_ref());
        Ok(files.map(|(certificate, key)| StandIn::load(certificate, key)).transpose()?)
    }
}

/// A proxy that can be started.
pub struct Prepared {
    pub(super) options: ProxyOptions,
    pub(super) rules: Rules,
    pub(super) stand_in: Option<StandIn>,
    pub(super) users: Option<Users>,
}

impl Prepared {
    /// Where it is to listen.
    pub fn listen(&self) -> SocketAddr {
        self.options.listen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: &str, clients: &[&str], users: bool, allow: &[&str]) -> ProxyOptions {
        ProxyOptions {
            listen: listen.parse().unwrap(),
            rules: None,
            ca_cert: None,
            ca_key: None,
            clients: clients.iter().map(|network| network.parse().unwrap()).collect(),
            users: users.then(|| "users".into()),
            allow: allow.iter().map(|place| place.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn others_are_let_in_only_where_it_is_said_who_and_by_what_or_where_to() {
        let who = &["10.0.0.0/8"][..];
        assert!(options("127.0.0.1:4051", &[], false, &[]).check().is_ok());
        assert!(options("[::1]:4051", &[], false, &["*"]).check().is_ok());
        assert!(options("0.0.0.0:4051", who, true, &[]).check().is_ok());
        assert!(options("0.0.0.0:4051", who, false, &["*.test"]).check().is_ok());
        for open in [
            options("0.0.0.0:4051", &[], true, &["a.test"]),
            options("[::]:4051", who, false, &[]),
            options("10.0.0.1:4051", who, false, &["a.test", "*"]),
            options("[::ffff:10.0.0.1]:1", who, false, &["*:443"]),
        ] {
            let error = open.check().unwrap_err().to_string();
            assert!(error.contains("--proxy-client"), "{error}");
        }
        let mut half = options("127.0.0.1:4051", &[], false, &[]);
        half.ca_key = Some("key".into());
        assert!(half.check().unwrap_err().to_string().contains("--proxy-ca-cert"));
    }

    #[test]
    fn what_is_looked_into_needs_an_authority() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules.toml");
        std::fs::write(&file, "intercept = ['a.test', '*.b.test']\n").unwrap();
        let mut options = options("127.0.0.1:4051", &[], false, &[]);
        options.rules = Some(file);
        let error = options.rules().err().unwrap().to_string();
        for says in ["a.test, *.b.test", "--proxy-ca-cert", "rules.toml"] {
            assert!(error.contains(says), "{error}");
        }
        options.ca_cert = Some("ca.pem".into());
        assert!(options.rules().is_ok());
    }

    #[test]
    fn what_is_asked_for_others_leads_nowhere_here_whoever_asks() {
        let loopback = "127.0.0.1".parse().unwrap();
        let alone = options("127.0.0.1:4051", &[], false, &[]);
        assert!((alone.reach_of_engine().led_to)(loopback));
        let others = options("0.0.0.0:4051", &["10.0.0.0/8"], true, &[]);
        let reach = others.reach_of_engine();
        assert!(!(reach.led_to)(loopback) && (reach.named)(loopback));
        assert!((reach.led_to)("198.51.100.7".parse().unwrap()));
    }
}
