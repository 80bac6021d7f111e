//! Logins from a kubelet's credential providers: programs that make them for images whose names they are for.
//!
//! What a kubelet is told of them (`CredentialProviderConfig`) is read once, when the process starts. What they print is kept
//! in memory only, for as long as they say, by what they say: the image, its registry, or anything. A login that a
//! registry refuses is made anew.

mod config;
mod pattern;
mod plugin;

use std::path::{Path, PathBuf};

use super::login::LoginError;
use super::reference::Reference;
use crate::Credentials;
use config::Told;
use pattern::ImagePattern;
use plugin::Plugin;

/// Where a kubelet's credential providers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialProviders {
    /// What is said of them: a file, or a directory of files.
    pub config: PathBuf,
    /// Where the programs lie.
    pub programs: PathBuf,
}

/// Those that there are, in the order in which they are asked.
#[derive(Default)]
pub(super) struct Providers(Vec<Provider>);

struct Provider {
    images: Vec<ImagePattern>,
    plugin: Plugin,
}

impl Providers {
    /// Reads what is said of them.
    pub fn read(places: &CredentialProviders) -> Result<Self, LoginError> {
        let told = config::read(&places.config)?;
        Ok(Self(told.into_iter().map(|told| Provider::of(told, &places.programs)).collect()))
    }

    /// What the first of them has that is for this image and has something. Not what was `refused`.
    pub async fn find(
        &self,
        reference: &Reference,
        refused: Option<&Credentials>,
    ) -> Result<Option<Credentials>, LoginError> {
        let image = format!("{}/{}", reference.registry(), reference.repository());
        for Provider { images, plugin } in &self.0 {
            if !images.iter().any(|pattern| pattern.matches(&image)) {
                continue;
            }
            let found = plugin.login(reference, &image, refused).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

impl Provider {
    fn of(told: Told, programs: &Path) -> Self {
        let images = told.images.clone();
        Self { images, plugin: Plugin::new(told, programs) }
    }
}
