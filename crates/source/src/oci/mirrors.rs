//! Where else what registries have can be had, as `registries.conf` of podman and CRI-O says it.
//!
//! What is named stays the registry's: a mirror is asked by nobody in particular, for bytes that a digest names and, for who shows
//! no login, for what a tag stands for. What a mirror does not give, or gives otherwise than its digest says, the next one is asked
//! for, and the registry last. One that fails is left alone for a while.

mod config;
mod recent;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use recent::Recent;

/// How long one is left alone that does not answer, or fails; and is not asked again for what it does not give.
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    left_until: Option<Instant>,
    /// For these repositories alone.
    left: Recent<String>,
    /// Blobs of which something was given on before it was held against their digest.
    unproven: Recent<Reference>,
    /// Blobs that it does not give.
    lacking: Recent<Reference>,
    /// Until when it is not asked for parts: it gave all.
    whole_until: Option<Instant>,
}

fn is_ahead(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

impl Mirror {
    fn of(told: ToldMirror) -> Arc<Self> {
        let ToldMirror { location, pulls, is_insecure } = told;
        Arc::new(Self { location, is_insecure, pulls, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is half done in it when a thread panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_left(&self, image: &String) -> bool {
        let state = self.state();
        is_ahead(state.left_until) || state.left.has(image)
    }

    fn leave(&self, lasting: Duration) {
        self.state().left_until = Some(Instant::now() + lasting);
    }

    /// It gave something else than this.
    fn lied(&self, blob: &Reference) {
        tracing::warn!(mirror = self.location, %blob, "it gave something else: left out");
        self.leave(DOUBTED);
    }

    /// Whether a blob, or a part of it, is not asked for: the last answer was no use, a moment ago.
    fn lacks(&self, blob: &Reference, ask: &Ask) -> bool {
        let state = self.state();
        state.lacking.has(blob) || ask.is_ranged() && is_ahead(state.whole_until)
    }

    /// It did not give what this names.
    pub fn failed(&self, of: &Reference, error: &SourceError) {
        tracing::debug!(mirror = self.location, %of, %error, "passed over");
        match error {
            SourceError::Malformed { .. } => self.leave(DOUBTED),
            SourceError::Tls { .. } => self.leave(RESTS),
            error if error.is_transient() => self.leave(RESTS),
            _ if matches!(of.named(), Named::Blob(_)) => {
                self.state().lacking.note(of.clone(), RESTS);
            }
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
        let image = image(reference);
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
            .filter(|mirror| mirror.pulls.takes(reference.named()) && !mirror.is_left(&image));
        let at = |mirror: &Arc<Mirror>| {
            let there = reference.at(&format!("{}{rest}", mirror.location)).ok()?;
            let there = Place { reference: there, is_insecure: mirror.is_insecure };
            Some((Arc::clone(mirror), there))
        };
        Ok(Places { mirrors: wanted.filter_map(at).collect(), location })
    }

    /// Something of a repository was not what it should be: of this repository those mirrors are left out that gave of blobs of
    /// it what nobody held against their digest. Whether there are any, so that it may be right when it is read again.
    ///
    /// It may as well be the image that is wrong: for others the mirrors stay.
    pub fn doubt(&self, reference: &Reference) -> bool {
        let image = image(reference);
        let mut is_any = false;
        for mirror in self.all_of(&image) {
            let mut state = mirror.state();
            if state.unproven.forget_all(|blob| blob.is_beside(reference)) {
                tracing::warn!(
                    mirror = mirror.location,
                    image,
                    "it may have given something else: left out"
                );
                state.left.note(image.clone(), DOUBTED);
                is_any = true;
            }
        }
        is_any
    }

    /// A blob proved to be what its digest says: so did what was given of it.
    pub fn proved(&self, blob: &Reference) {
        for mirror in self.all_of(&image(blob)) {
            mirror.state().unproven.forget(blob);
        }
    }

    fn all_of(&self, image: &str) -> &[Arc<Mirror>] {
        self.of(image).map_or(&[], |(registry, _)| &registry.mirrors)
    }
}

/// A repository with its registry.
fn image(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// A blob wherever it can be had: each mirror answers once, and what breaks off is gone on with at the next place.
pub(super) struct AnyPlace {
    mirrors: Vec<(Arc<Mirror>, Asker)>,
    location: Asker,
    next: AtomicUsize,
    givers: Givers,
}

/// The mirrors that gave bytes of one read of a blob.
#[derive(Clone)]
pub(super) struct Givers {
    blob: Reference,
    mirrors: Arc<Mutex<Vec<Arc<Mirror>>>>,
}

impl Givers {
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Mirror>>> {
        self.mirrors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, mirror: &Arc<Mirror>) {
        mirror.state().unproven.note(self.blob.clone(), DOUBTED);
        self.all().push(Arc::clone(mirror));
    }

    /// All of it came, and is what its digest says.
    pub fn proved(&self) {
        for mirror in self.all().iter() {
            mirror.state().unproven.forget(&self.blob);
        }
    }

    /// It is something else.
    pub fn lied(&self) {
        for mirror in self.all().iter() {
            mirror.lied(&self.blob);
        }
    }
}

impl AnyPlace {
    pub fn new(mirrors: Vec<(Arc<Mirror>, Asker)>, location: Asker) -> Self {
        let givers = Givers { blob: location.reference.clone(), mirrors: Arc::default() };
        Self { mirrors, location, next: AtomicUsize::new(0), givers }
    }

    pub fn givers(&self) -> Givers {
        self.givers.clone()
    }
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
        let blob = &self.givers.blob;
        while let Some((mirror, asker)) =
            self.mirrors.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            if mirror.lacks(blob, ask) {
                continue;
            }
            match asker.ask(ask, attempt).await {
                Ok(answer) if answer.status() == wanted => {
                    self.givers.add(mirror);
                    return Ok(answer);
                }
                Ok(answer) if answer.status() == 200 => {
                    mirror.state().whole_until = Some(Instant::now() + RESTS);
                }
                Ok(answer) => mirror.failed(blob, &asker.refusal(&answer, attempt)),
                Err(error) => mirror.failed(blob, &error),
            }
        }
        self.location.ask(ask, attempt).await
    }
}
