//! What a site compiles in beside what dfs brings: a process of its own is the usual one, told these.
//!
//! A scheme added here works wherever a URL does. Who is asked for it must know it: a node alone reads the
//! origin itself, in a cluster the seed does, so both are built with it. `examples/own-source` is such a
//! site.

use std::sync::Arc;

use dfs_source::{Counters, Source, Sources, SourcesBuilder};

type MakeSource = Arc<dyn Fn(Arc<Counters>) -> Arc<dyn Source> + Send + Sync>;

/// What a site adds; nothing by default.
#[derive(Clone, Default)]
pub struct Extensions {
    sources: Vec<(String, MakeSource)>,
}

impl Extensions {
    /// Reads URLs of `scheme` with what `make` gives, also where dfs has a source of its own for them. It is
    /// called once for each host of the process, with the counters that the source counts its requests in.
    pub fn source(
        mut self,
        scheme: &str,
        make: impl Fn(Arc<Counters>) -> Arc<dyn Source> + Send + Sync + 'static,
    ) -> Self {
        self.sources.push((scheme.to_owned(), Arc::new(make)));
        self
    }

    /// The beginning of a host's sources.
    pub fn sources(&self) -> SourcesBuilder {
        self.sources.iter().fold(Sources::builder(), |builder, (scheme, make)| {
            let source = make(builder.counters());
            builder.with(scheme, source)
        })
    }
}
