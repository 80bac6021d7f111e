//! Which images something is for, as a kubelet has it: `*.registry.io:5000/team`. Pure.
//!
//! Each part of the host is held against its part of the pattern, where `*` stands for any signs of that part and `[a-z]` for one;
//! there are as many parts as in the pattern. The port is the same, and the path begins with that of the pattern.

/// A pattern; or an image's name, which is one that stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImagePattern {
    parts: Vec<String>,
    port: String,
    path: String,
}

impl ImagePattern {
    /// Reads one; what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("://") {
            return Err("it has a scheme, which no image's name has");
        }
        // It is read as a URL behind its scheme is.
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let (place, path) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:*[]".contains(&byte);
        if place.is_empty() || !place.bytes().all(known) {
            return Err("it has no host");
        }
        let (host, port) = parted(place);
        let parts: Vec<String> = host.split('.').map(str::to_owned).collect();
        if !parts.iter().all(|part| is_closed(part)) {
            return Err("a '[' in it is not closed");
        }
        Ok(Self { parts, port: port.to_owned(), path: path.to_owned() })
    }

    /// Whether an image of this name, without a tag, is one of those that are meant.
    pub fn matches(&self, image: &str) -> bool {
        let Ok(image) = Self::parse(image) else { return false };
        let mut parts = self.parts.iter().zip(&image.parts);
        self.port == image.port
            && self.parts.len() == image.parts.len()
            && image.path.starts_with(&self.path)
            && parts.all(|(pattern, part)| fits(pattern.as_bytes(), part.as_bytes()))
    }
}

/// Host and port; brackets go from around an address that has one.
fn parted(place: &str) -> (&str, &str) {
    let Some((host, port)) = place.rsplit_once(':') else { return (place, "") };
    match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(Some(host)) => (host, port),
        // An address of which the colon is a part.
        Some(None) => (place, ""),
        None if host.contains(':') => (place, ""),
        None => (host, port),
    }
}

fn is_closed(part: &str) -> bool {
    let opened = part.find('[');
    opened.is_none_or(|at| part[at..].find(']').is_some_and(|end| end > 1))
}

/// Whether a pattern of `*` and `[…]` stands for all of a text. Goes back to the last `*` alone, so that it ends soon.
fn fits(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut last: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern.split_first(), text.split_first()) {
            (None, None) => return true,
            (Some((b'*', rest)), _) => {
                last = Some((rest, text));
                Some((rest, text))
            }
            (Some((b'[', rest)), Some((byte, others))) => {
                one_of(rest, *byte).map(|rest| (rest, others))
            }
            (Some((wanted, rest)), Some((byte, others))) if wanted == byte => Some((rest, others)),
            _ => None,
        };
        let back = || {
            let (rest, from) = last?;
            let (_, others) = from.split_first()?;
            Some((rest, others))
        };
        match step {
            Some(next) => (pattern, text) = next,
            None => {
                let Some((rest, others)) = back() else { return false };
                last = Some((rest, others));
                (pattern, text) = (rest, others);
            }
        }
    }
}

/// What stands behind a set whose `[` is read, where it has `byte`.
fn one_of(set: &[u8], byte: u8) -> Option<&[u8]> {
    let end = set.iter().position(|sign| *sign == b']')?;
    let (mut set, rest) = (&set[..end], &set[end + 1..]);
    let mut is_in = false;
    while let Some((&first, others)) = set.split_first() {
        let (last, others) = match others {
            [b'-', last, others @ ..] => (*last, others),
            others => (first, others),
        };
        is_in |= (first..=last).contains(&byte);
        set = others;
    }
    is_in.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_matched_as_a_kubelet_matches_it() {
        // The cases of kubelet's own documentation and tests, by their meaning.
        for (pattern, image, is_meant) in [
            ("*.dkr.ecr.*.amazonaws.com", "123.dkr.ecr.eu-west-1.amazonaws.com/app", true),
            ("*.dkr.ecr.*.amazonaws.com", "123.dkr.ecr.eu.west.amazonaws.com/app", false),
            ("*.dkr.ecr.*.amazonaws.com.cn", "123.dkr.ecr.cn-north-1.amazonaws.com/app", false),
            ("*.io", "registry.io/app", true),
            ("*.io", "a.registry.io/app", false),
            ("*.*.registry.io", "a.b.registry.io/app", true),
            ("*.registry.io:8080/path", "foo.registry.io:8080/path/app", true),
            ("*.registry.io:8080/path", "foo.registry.io:8080/other", false),
            ("*.registry.io:8080", "foo.registry.io/app", false),
            ("*.registry.io", "foo.registry.io:8080/app", false),
            ("gcr.io", "gcr.io/team/app", true),
            ("gcr.io", "eu.gcr.io/team/app", false),
            ("gcr.io/team", "gcr.io/team-b/app", true),
            ("gcr.io/team/", "gcr.io/team-b/app", false),
            ("app*.io", "app.io/x", true),
            ("*a*b.io", "xaxxab.io/x", true),
            ("*a*b.io", "xaxxabc.io/x", false),
            ("re[a-g]istry[19].io", "registry1.io/x", true),
            ("re[a-g]istry[19].io", "registry2.io/x", false),
            ("docker.io", "docker.io/library/debian", true),
            ("[::1]:5000", "[::1]:5000/app", true),
            ("localhost:5000", "localhost:5000/app", true),
        ] {
            let parsed = ImagePattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(image), is_meant, "{pattern} {image}");
        }
        for bad in ["", "/path", "https://registry.io", "a b.io", "re[a-.io", "u@h"] {
            assert!(ImagePattern::parse(bad).is_err(), "{bad}");
        }
        let long = format!("{}b.io", "*a".repeat(60));
        let text = format!("{}.io/x", "a".repeat(200));
        assert!(!ImagePattern::parse(&long).unwrap().matches(&text));
    }
}
