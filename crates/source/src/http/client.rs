//! The one HTTP client set-up.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use reqwest::{Certificate, Client, ClientBuilder};

use super::HttpOptions;
use super::proxy::Proxies;
use super::reach::Resolver;
use crate::{Attempt, Cause, SourceError};

/// What one HTTP/2 answer, and one connection, may have in flight: enough for 1 Gbit/s at 60 ms,
/// and the bound of what waits in memory for slow readers.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// Largest CA file taken.
const MAX_CA_BYTES: u64 = 16 << 20;

pub(super) fn build(options: &HttpOptions) -> Result<Client, SourceError> {
    let certificates = read_authorities(options)?;
    let proxies = Proxies::new(&options.proxy).map_err(|reason| {
        SourceError::setup("the HTTP client", io::Error::new(io::ErrorKind::InvalidInput, reason))
    })?;
    let proxies = Arc::new(proxies);
    let builder = |options| with_proxies(builder(options), Arc::clone(&proxies));
    let built = if certificates.is_empty() {
        builder(options).build()
    } else {
        builder(options).tls_certs_merge(certificates).build()
    };
    // A machine without any CA certificate can still speak plain HTTP: there, https trusts nobody.
    let built = match built {
        Err(_) if options.ca_files.is_empty() => builder(options).tls_certs_only([]).build(),
        built => built,
    };
    built.map_err(|error| SourceError::setup("the HTTP client", error))
}

fn builder(options: &HttpOptions) -> ClientBuilder {
    let builder = match options.user_agent.as_str() {
        "" => Client::builder(),
        name => Client::builder().user_agent(name),
    };
    builder
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .dns_resolver(Resolver(options.reach))
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(options.idle_timeout)
        .pool_max_idle_per_host(options.idle_connections)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// Ours decide, not the client's own, which would send requests to this machine elsewhere.
fn with_proxies(builder: ClientBuilder, proxies: Arc<Proxies>) -> ClientBuilder {
    builder.no_proxy().proxy(reqwest::Proxy::custom(move |url| proxies.for_url(url).cloned()))
}

fn read_authorities(options: &HttpOptions) -> Result<Vec<Certificate>, SourceError> {
    let mut all = Vec::new();
    for path in &options.ca_files {
        let what = || format!("CA file {}", path.display());
        let pem = read_bounded(path).map_err(|error| SourceError::setup(what(), error))?;
        let mut found = Certificate::from_pem_bundle(&pem)
            .map_err(|error| SourceError::setup(what(), error))?;
        if found.is_empty() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it holds no PEM certificate");
            return Err(SourceError::setup(what(), error));
        }
        all.append(&mut found);
    }
    Ok(all)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > MAX_CA_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "no CA file is above 16 MiB"));
    }
    std::fs::read(path)
}

/// A failure before there was an answer, in this crate's words.
pub(super) fn classify(
    error: reqwest::Error,
    attempt: &Attempt,
    options: &HttpOptions,
) -> SourceError {
    let attempt = attempt.clone();
    if error.is_builder() {
        return SourceError::Malformed { attempt, reason: error.without_url().to_string() };
    }
    if error.is_timeout() {
        return SourceError::Timeout { attempt, limit: options.connect_timeout };
    }
    let insecure = is_tls(&error);
    // Its URL is told by the attempt, redacted.
    let cause: Cause = Arc::new(error.without_url());
    match insecure {
        true => SourceError::Tls { attempt, cause },
        false => SourceError::Unreachable { attempt, cause },
    }
}

/// Whether TLS itself said no: somewhere down the chain, possibly inside an I/O error, stands its
/// error.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // The source of an I/O error is its content's source: the content itself would be passed by.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside.map(|inside| inside as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}
