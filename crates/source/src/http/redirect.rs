//! Where a request goes next, decided without I/O.
//!
//! Credentials are sent to the origin (scheme, host, port) they were given for and to nobody else;
//! once a redirect left that origin they stay behind for the rest of the way, even if it leads
//! back: another host must not choose what is asked in our name.

use dfs_model::CanonicalUrl;
use url::Url;

use super::reach::{self, IsAsked};

/// The way of one request through its redirects.
pub(super) struct Route {
    /// Asked next.
    pub url: Url,
    /// Whether credentials go along.
    pub trusted: bool,
    /// The name of the thing: the URL up to the first redirect that is temporary or leaves the
    /// origin.
    pub stays: CanonicalUrl,
    permanent: bool,
    /// Which addresses it may lead to.
    led_to: IsAsked,
}

/// How a redirect may not be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotFollowed(pub String);

impl Route {
    pub fn new(url: &CanonicalUrl, led_to: IsAsked) -> Self {
        let (stays, url) = (url.clone(), url.url().clone());
        Self { url, trusted: true, stays, permanent: true, led_to }
    }

    /// Whether a status sends elsewhere.
    pub fn is_redirect(status: u16) -> bool {
        matches!(status, 301 | 302 | 303 | 307 | 308)
    }

    /// Takes one redirect.
    pub fn follow(&mut self, status: u16, location: Option<&[u8]>) -> Result<(), NotFollowed> {
        let location = location.ok_or_else(|| {
            NotFollowed(format!("the origin answered status {status} without a Location"))
        })?;
        let location = String::from_utf8_lossy(location);
        let mut next = self.url.join(&location).map_err(|error| {
            NotFollowed(format!("the origin redirects to something that is no URL ({error})"))
        })?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(NotFollowed(format!("the origin redirects to '{}://'", next.scheme())));
        }
        // Credentials that the answer suggests are nobody's.
        let cleared = next.set_username("").and_then(|()| next.set_password(None));
        cleared.map_err(|()| NotFollowed("the origin redirects to a URL without a host".into()))?;
        next.set_fragment(None);

        let same = next.origin() == self.url.origin();
        // Who trusts whoever can reach it would trust us.
        if !same && reach::check(&next, self.led_to).is_err() {
            return Err(NotFollowed(
                "the origin redirects to an address that no origin has".into(),
            ));
        }
        self.trusted &= same;
        self.permanent &= same && matches!(status, 301 | 308);
        if self.permanent {
            self.stays =
                CanonicalUrl::new(next.clone()).map_err(|error| NotFollowed(error.to_string()))?;
        }
        self.url = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_there(led_to: IsAsked) -> Route {
        Route::new(&CanonicalUrl::parse("https://h/dir").unwrap(), led_to)
    }

    fn route(hops: &[(u16, &str)]) -> Route {
        let mut route = from_there(reach::any_origin);
        for (status, location) in hops {
            route.follow(*status, Some(location.as_bytes())).unwrap();
        }
        route
    }

    #[test]
    fn credentials_stay_at_their_origin_and_do_not_come_back() {
        assert!(route(&[(301, "/dir/"), (302, "https://h:443/x")]).trusted);
        for away in ["http://h/dir", "https://h:8443/", "https://other/", "//other/x"] {
            assert!(!route(&[(302, away)]).trusted, "{away}");
            assert!(!route(&[(302, away), (302, "https://h/dir")]).trusted, "{away}");
        }
    }

    #[test]
    fn only_permanent_redirects_at_the_same_origin_rename() {
        assert_eq!(route(&[(301, "/dir/")]).stays.as_str(), "https://h/dir/");
        assert_eq!(route(&[(308, "/a"), (302, "/b"), (301, "/c")]).stays.as_str(), "https://h/a");
        assert_eq!(route(&[(301, "https://cdn/x")]).stays.as_str(), "https://h/dir");
        assert_eq!(route(&[(301, "/a#top")]).url.as_str(), "https://h/a");
    }

    #[test]
    fn nothing_but_the_web_is_followed() {
        let mut route = route(&[]);
        for bad in ["file:///etc/passwd", "ftp://h/x", "https://", "http://[", "data:,x"] {
            assert!(route.follow(302, Some(bad.as_bytes())).is_err(), "{bad}");
        }
        for metadata in ["http://169.254.169.254/x", "//2852039166/", "http://[fe80::1]/"] {
            assert!(route.follow(302, Some(metadata.as_bytes())).is_err(), "{metadata}");
        }
        assert!(route.follow(302, None).is_err());
        route.follow(302, Some(b"https://eve:pw@h/x")).unwrap();
        assert_eq!(route.url.as_str(), "https://h/x");
        let here = ["http://127.0.0.1/x", "http://localhost./x", "//[::1]/"];
        for here in here {
            let mut bounded = from_there(|ip| !ip.is_loopback());
            assert!(bounded.follow(302, Some(here.as_bytes())).is_err(), "{here}");
            route.follow(302, Some(here.as_bytes())).unwrap();
        }
    }
}
