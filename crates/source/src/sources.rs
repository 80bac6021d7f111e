//! Which adapter answers for which scheme.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::oci::Pusher;
use crate::{
    Counters, FileOptions, FileSource, HttpOptions, HttpSource, OciOptions, OciSource, S3Options,
    S3Source, Source, SourceError, Target,
};

/// The sources a process knows, by scheme; cheap to clone.
#[derive(Clone)]
pub struct Sources {
    by_scheme: Arc<BTreeMap<String, Arc<dyn Source>>>,
    registries: Option<Arc<OciSource>>,
    counters: Arc<Counters>,
}

/// Puts [`Sources`] together; nothing is known that was not asked for.
#[derive(Clone, Default)]
pub struct SourcesBuilder {
    http: Option<HttpOptions>,
    file: Option<FileOptions>,
    s3: Option<S3Options>,
    oci: Option<OciOptions>,
    others: Vec<(String, Arc<dyn Source>)>,
    counters: Arc<Counters>,
}

impl Sources {
    /// Starts with none.
    pub fn builder() -> SourcesBuilder {
        SourcesBuilder::default()
    }

    /// The adapter for a target's scheme.
    pub fn for_target(&self, target: &Target) -> Result<Arc<dyn Source>, SourceError> {
        let scheme = target.url.url().scheme();
        self.by_scheme.get(scheme).cloned().ok_or_else(|| self.unsupported(scheme))
    }

    /// Who puts into the repository that a target names, over the connections and tokens of who reads.
    pub fn pusher(&self, target: &Target) -> Result<Pusher, SourceError> {
        match &self.registries {
            Some(registries) => registries.pusher(target),
            None => Err(self.unsupported(target.url.url().scheme())),
        }
    }

    fn unsupported(&self, scheme: &str) -> SourceError {
        SourceError::Unsupported {
            scheme: scheme.to_owned(),
            known: self.by_scheme.keys().cloned().collect::<Vec<_>>().join(", "),
        }
    }

    /// The adapter of container registries, for who passes on what their clients ask.
    pub fn registries(&self) -> Option<&Arc<OciSource>> {
        self.registries.as_ref()
    }

    /// Something that was read of an image is not what it should be: what mirrors of its registry gave is doubted. Whether it
    /// may be right when it is read again.
    pub fn doubt_mirrors(&self, target: &Target) -> bool {
        self.registries.as_ref().is_some_and(|registries| registries.doubt_mirrors(target))
    }

    /// All of what is at `target` was held against a digest by who read it: what mirrors gave of it is not doubted.
    pub fn proved(&self, target: &Target) {
        if let Some(registries) = &self.registries {
            registries.proved(target);
        }
    }

    /// Waits for what goes on after calls that were dropped, in all of them.
    pub async fn settle(&self) {
        for source in self.by_scheme.values() {
            source.settle().await;
        }
    }

    /// What all of them asked of their origins.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl SourcesBuilder {
    /// Knows `http` and `https`.
    pub fn http(mut self, options: HttpOptions) -> Self {
        self.http = Some(options);
        self
    }

    /// Knows `file`.
    pub fn file(mut self, options: FileOptions) -> Self {
        self.file = Some(options);
        self
    }

    /// Knows `s3`, over the connections of `http` where that is known too.
    pub fn s3(mut self, options: S3Options) -> Self {
        self.s3 = Some(options);
        self
    }

    /// Knows `oci`, over the connections of `http` where that is known too.
    pub fn oci(mut self, options: OciOptions) -> Self {
        self.oci = Some(options);
        self
    }

    /// Knows one more scheme, or takes one over.
    pub fn with(mut self, scheme: &str, source: Arc<dyn Source>) -> Self {
        self.others.push((scheme.to_ascii_lowercase(), source));
        self
    }

    /// The counters that the built sources share; a source of one's own counts here too.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Makes the clients; fails when a CA file cannot be read.
    pub fn build(self) -> Result<Sources, SourceError> {
        let mut by_scheme: BTreeMap<String, Arc<dyn Source>> = BTreeMap::new();
        let over_http = self.http.is_some() || self.s3.is_some() || self.oci.is_some();
        let knows_http = self.http.is_some();
        let mut registries = None;
        if over_http {
            let options = self.http.unwrap_or_default();
            let http = Arc::new(HttpSource::new(options, Arc::clone(&self.counters))?);
            if let Some(options) = self.s3 {
                let s3 = S3Source::over(options, http.web())?;
                by_scheme.insert("s3".to_owned(), Arc::new(s3));
            }
            if let Some(options) = self.oci {
                let oci = Arc::new(OciSource::over(options, http.web())?);
                by_scheme.insert("oci".to_owned(), Arc::clone(&oci) as Arc<dyn Source>);
                registries = Some(oci);
            }
            if knows_http {
                by_scheme.insert("http".to_owned(), Arc::clone(&http) as Arc<dyn Source>);
                by_scheme.insert("https".to_owned(), http);
            }
        }
        if let Some(options) = self.file {
            let file = FileSource::new(options, Arc::clone(&self.counters));
            by_scheme.insert("file".to_owned(), Arc::new(file));
        }
        if self.others.iter().any(|(scheme, _)| scheme == "oci") {
            // A site's own adapter does not pass on what others ask.
            registries = None;
        }
        by_scheme.extend(self.others);
        let (by_scheme, counters) = (Arc::new(by_scheme), self.counters);
        Ok(Sources { by_scheme, registries, counters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_can_add_its_own_source_and_unknown_ones_are_named() {
        let file = Arc::new(FileSource::new(FileOptions::default(), Arc::default()));
        let sources =
            Sources::builder().http(HttpOptions::default()).with("NFS", file).build().unwrap();
        for known in ["http://h/", "https://h/", "nfs://h/x"] {
            assert!(sources.for_target(&Target::parse(known).unwrap()).is_ok(), "{known}");
        }
        let error = sources.for_target(&Target::parse("/etc/passwd").unwrap()).err().unwrap();
        assert_eq!(error.to_string(), "no source for 'file://' (known: http, https, nfs)");
    }
}
