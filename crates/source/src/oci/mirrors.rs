//! Where else what registries have can be had, as `registries.conf` of podman and CRI-O says it.
//!
//! What is named stays the registry's: a mirror is asked by nobody in particular, for bytes that a digest names and, for who shows
//! no login, for what a tag stands for. What a mirror does not give, or gives otherwise than its digest says, the next one is asked
//! for, and the registry last. One that fails is left alone for a while.

mod config;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dfs_model::Validator;
use tokio::time::Instant;

use super::place::Place;
use super::reference::{Named, Reference};
use super::registry::Asker;
use crate::http::Web;
use crate::http::exchange::{Answer, Ask, Condition};
use crate::http::read::Readable;
use crate::{Attempt, SourceError};
use config::{Told, ToldMirror};

/// How long one is left alone that does not answer, or fails.
const RESTS: Duration = Duration::from_secs(30);
/// The same of one that gave something else than was asked for.
const DOUBTED: Duration = Duration::from_secs(3600);

/// Why what is said of mirrors cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the mirrors of {path} cannot be used: {reason}")]
pub struct MirrorsError {
    /// Where it is said.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// For what a mirror is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulls {
    All,
    /// What is named by a digest.
    Digests,
    /// What is named by a tag; blobs are named by none.
    Tags,
}

impl Pulls {
    fn takes(self, named: &Named) -> bool {
        match (self, named) {
            (Self::All, _) | (_, Named::Blob(_)) => true,
            (Self::Digests, named) => matches!(named, Named::Manifest(_)),
            (Self::Tags, named) => matches!(named, Named::Tag(_)),
        }
    }
}

/// A mirror, and how it went with it.
pub(super) struct Mirror {
    location: String,
    is_insecure: bool,
    pulls: Pulls,
    left_until: Mutex<Option<Instant>>,
    /// Whether something was given on of it before it was held against its digest.
    is_unproven: AtomicBool,
}

impl Mirror {
    fn of(told: ToldMirror) -> Arc<Self> {
        let ToldMirror { location, pulls, is_insecure } = told;
        let (left_until, is_unproven) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { location, is_insecure, pulls, left_until, is_unproven })
    }

    fn is_left(&self) -> bool {
        let left_until = self.left_until.lock().unwrap_or_else(PoisonError::into_inner);
        left_until.is_some_and(|until| Instant::now() < until)
    }

    fn leave(&self, lasting: Duration) {
        let mut left_until = self.left_until.lock().unwrap_or_else(PoisonError::into_inner);
        *left_until = Some(Instant::now() + lasting);
    }

    /// It did not give what it was asked for.
    pub fn failed(&self, error: &SourceError) {
        tracing::debug!(mirror = self.location, %error, "passed over");
        match error {
            SourceError::Malformed { .. } => self.leave(DOUBTED),
            SourceError::Tls { .. } => self.leave(RESTS),
            error if error.is_transient() => self.leave(RESTS),
            _ => {}
        }
    }
}

/// What there is of registries and their mirrors.
#[derive(Default)]
pub(super) struct Mirrors(Vec<Registry>);

struct Registry {
    told: Told,
    mirrors: Vec<Arc<Mirror>>,
}

/// Where something is asked for.
pub(super) struct Places {
    /// In order; by its own name there.
    pub mirrors: Vec<(Arc<Mirror>, Place)>,
    /// What is asked last.
    pub location: Place,
}

impl Mirrors {
    /// Reads what is said of them.
    pub fn read(path: &Path) -> Result<Self, MirrorsError> {
        let told = config::read(path)?;
        let registry = |mut told: Told| {
            let mirrors = std::mem::take(&mut told.mirrors).into_iter().map(Mirror::of).collect();
            Registry { told, mirrors }
        };
        Ok(Self(told.into_iter().map(registry).collect()))
    }

    /// What is said of a repository: by the longest prefix, and how much of the name that is.
    fn of(&self, image: &str) -> Option<(&Registry, usize)> {
        let fitting = self.0.iter().filter_map(|one| Some((one, one.told.prefix_of(image)?)));
        fitting.max_by_key(|(_, length)| *length)
    }

    /// Where what is named is asked for; why nowhere.
    pub fn places(&self, reference: &Reference) -> Result<Places, String> {
        let image = format!("{}/{}", reference.registry(), reference.repository());
        let Some((Registry { told, mirrors }, length)) = self.of(&image) else {
            let location = Place { reference: reference.clone(), is_insecure: false };
            return Ok(Places { mirrors: Vec::new(), location });
        };
        if told.is_blocked {
            return Err(format!("registries.conf blocks what begins with {}", told.prefix));
        }
        let rest = &image[length..];
        let location = match &told.location {
            Some(location) => reference.at(&format!("{location}{rest}"))?,
            None => reference.clone(),
        };
        let location = Place { reference: location, is_insecure: told.is_insecure };
        let wanted = mirrors
            .iter()
            .filter(|mirror| mirror.pulls.takes(reference.named()) && !mirror.is_left());
        let at = |mirror: &Arc<Mirror>| {
            let there = reference.at(&format!("{}{rest}", mirror.location)).ok()?;
            let there = Place { reference: there, is_insecure: mirror.is_insecure };
            Some((Arc::clone(mirror), there))
        };
        Ok(Places { mirrors: wanted.filter_map(at).collect(), location })
    }

    /// Something of a repository was not what it should be: its mirrors that gave anything unproven are left out from now
    /// on. Whether there are any, so that it may be right when it is read again.
    pub fn doubt(&self, reference: &Reference) -> bool {
        let image = format!("{}/{}", reference.registry(), reference.repository());
        let Some((Registry { mirrors, .. }, _)) = self.of(&image) else { return false };
        let mut is_any = false;
        for mirror in mirrors {
            if mirror.is_unproven.swap(false, Ordering::Relaxed) {
                tracing::warn!(mirror = mirror.location, %image, "it gave something else: left out");
                mirror.leave(DOUBTED);
                is_any = true;
            }
        }
        is_any
    }
}

/// A blob wherever it can be had: each mirror answers once, and what breaks off is gone on with at the next place.
pub(super) struct AnyPlace {
    pub mirrors: Vec<(Arc<Mirror>, Asker)>,
    pub location: Asker,
    pub next: AtomicUsize,
}

#[async_trait]
impl Readable for AnyPlace {
    fn web(&self) -> &Web {
        self.location.web()
    }

    fn condition(&self, pin: &Validator) -> Option<Condition> {
        self.location.condition(pin)
    }

    async fn ask(&self, ask: &Ask, attempt: &Attempt) -> Result<Answer, SourceError> {
        let wanted = if ask.is_ranged() { 206 } else { 200 };
        while let Some((mirror, asker)) =
            self.mirrors.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            match asker.ask(ask, attempt).await {
                Ok(answer) if answer.status() == wanted => {
                    mirror.is_unproven.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(answer) => mirror.failed(&asker.refusal(&answer, attempt)),
                Err(error) => mirror.failed(&error),
            }
        }
        self.location.ask(ask, attempt).await
    }
}
