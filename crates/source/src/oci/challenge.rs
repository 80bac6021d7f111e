//! What a registry wants of who asks it: `WWW-Authenticate` (RFC 9110, 11.6.1). Pure; hostile until checked.

/// Longest header that is looked at.
const MAX_BYTES: usize = 8 * 1024;
/// Most challenges, and most parameters of one.
const MOST: usize = 16;

/// A way to show who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token that is given out elsewhere.
    Bearer(Bearer),
}

/// Where a token is given out, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Bearer {
    /// A URL.
    pub realm: String,
    /// The registry's name for itself there.
    pub service: Option<String>,
    /// What is asked for.
    pub scope: Option<String>,
}

/// The ways that headers offer, in their order; what is unknown or makes no sense is none.
pub(super) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found = Vec::new();
    for header in headers.into_iter().filter(|header| header.len() <= MAX_BYTES).take(MOST) {
        let mut rest = Rest(header);
        while let Some(scheme) = rest.scheme() {
            let parameters = rest.parameters();
            found.extend(challenge(scheme, parameters));
            if found.len() >= MOST {
                break;
            }
        }
    }
    found
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut bearer = Bearer::default();
    for (name, value) in parameters.into_iter().filter(|(_, value)| !value.is_empty()) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => bearer.realm = value,
            "service" => bearer.service = Some(value),
            "scope" => bearer.scope = Some(value),
            _ => {}
        }
    }
    (!bearer.realm.is_empty()).then_some(Challenge::Bearer(bearer))
}

/// What of a header has not been read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
    }

    fn word(&mut self) -> Option<&'a str> {
        let is_part = |char: char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char);
        let end = self.0.find(|char| !is_part(char)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn scheme(&mut self) -> Option<&'a str> {
        self.skip();
        self.word()
    }

    /// Those up to the next scheme. A scheme is told from a name by what follows it.
    fn parameters(&mut self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        loop {
            self.skip();
            let before = self.0;
            let Some(name) = self.word() else {
                // A token68, or nonsense: up to the next comma it is nobody's.
                self.0 = self.0.find(',').map_or("", |at| &self.0[at..]);
                if self.0.is_empty() { return found } else { continue }
            };
            let Some(value) = self.0.trim_start().strip_prefix('=') else {
                self.0 = before;
                return found;
            };
            self.0 = value.trim_start();
            match self.value() {
                Some(value) if found.len() < MOST => found.push((name.to_owned(), value)),
                Some(_) => {}
                None => {
                    self.0 = "";
                    return found;
                }
            }
        }
    }

    /// A word, or a text in quotes; `None` where its end is missing.
    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.0.strip_prefix('"') else {
            return Some(self.word().unwrap_or_default().to_owned());
        };
        let (mut value, mut escaped) = (String::new(), false);
        for (at, char) in quoted.char_indices() {
            match char {
                _ if escaped => {
                    value.push(char);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return Some(value);
                }
                _ => value.push(char),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer(Bearer {
            realm: realm.into(),
            service: owned(service),
            scope: owned(scope),
        })
    }

    #[test]
    fn what_registries_send_is_read() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull""#;
        let scope = "repository:library/debian:pull";
        let wanted =
            bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some(scope));
        assert_eq!(parse([docker]), [wanted]);
        assert_eq!(parse([r#"Basic realm="Registry Realm""#]), [Challenge::Basic]);
        assert_eq!(parse(["bearer Realm=x , SERVICE = y"]), [bearer("x", Some("y"), None)]);
    }

    #[test]
    fn several_ways_stand_in_one_header_or_in_several() {
        let both = [bearer("a,b", None, None), Challenge::Basic];
        assert_eq!(parse([r#"Negotiate, Bearer realm="a,b", Basic realm="x""#]), both);
        assert_eq!(parse(["Negotiate abc==", r#"Bearer realm="a,b""#, "Basic"]), both);
        let quoted = parse([r#"Bearer realm="a\"b\\c""#]);
        assert_eq!(quoted, [bearer(r#"a"b\c"#, None, None)]);
    }

    #[test]
    fn nonsense_is_no_challenge() {
        let long = format!("Bearer realm=\"{}\"", "x".repeat(MAX_BYTES));
        for bad in
            ["", ",,,", "Bearer", "Bearer realm=", "Bearer realm=\"x", "=x", "Digest a=b", &long]
        {
            assert_eq!(parse([bad]), [], "{bad}");
        }
        let many = "Basic, ".repeat(1000);
        assert!(parse([many.as_str()]).len() <= MOST);
    }

    proptest! {
        #[test]
        fn any_header_is_read_to_an_end(text in "[a-zA-Z =,\"\\\\.:/é]{0,200}") {
            prop_assert!(parse([text.as_str()]).len() <= MOST);
        }

        #[test]
        fn a_value_in_quotes_reads_back(value in "[ -~]{1,60}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{escaped}\"");
            prop_assert_eq!(parse([header.as_str()]), [bearer(&value, None, None)]);
        }
    }
}
