//! Rules: what becomes of a request, by its URL, method, headers and query. The first one that fits decides. Pure, but for
//! the file that they are read from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dfs_model::CanonicalUrl;
use hyper::header::HeaderName;
use hyper::{HeaderMap, Method};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use super::file;
use super::place::{Authority, Place};

/// Most rules of a file.
const MAX_RULES: usize = 1000;

/// What a pattern may take of memory.
const MAX_PATTERN: usize = 1 << 20;

/// Rules that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file.
    #[error("cannot read the rules in {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The file is no such file.
    #[error("{} holds no rules: {}", .0.display(), .1)]
    Malformed(PathBuf, String),
    /// One of them.
    #[error("rule {} of {}: {}", .1, .0.display(), .2)]
    Rule(PathBuf, usize, String),
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is passed on as it is.
    Direct,
    /// It is answered from the task of its URL, where it can be.
    Swarm(Shared),
    /// It is answered as a registry's mirror does, where it can be.
    Registry,
    /// It is refused.
    Refuse,
    /// Another URL is meant: this in place of what the pattern found. The rules behind it decide.
    Redirect(String),
}

/// How contents are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Parameters of the query that do not name another content.
    pub ignore_query: Vec<String>,
    /// Whether what is asked for with a login is shared with those that show the same one.
    pub with_login: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    intercept: Vec<Place>,
    #[serde(default)]
    rule: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    url: String,
    #[serde(default)]
    method: Vec<String>,
    #[serde(default)]
    header: BTreeMap<String, String>,
    #[serde(default)]
    query: BTreeMap<String, String>,
    action: Word,
    ignore_query: Option<Vec<String>>,
    with_login: Option<bool>,
    to: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Swarm,
    Registry,
    Direct,
    Redirect,
    Refuse,
}

/// A rule that was understood.
struct Rule {
    url: Regex,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Regex)>,
    query: Vec<(String, Regex)>,
    action: Action,
}

/// What was decided.
#[derive(Debug, PartialEq, Eq)]
pub struct Decided<'a> {
    /// The URL that is meant.
    pub url: CanonicalUrl,
    /// What becomes of it.
    pub action: &'a Action,
    /// By which rule, counted from one; by none where it is zero.
    pub rule: usize,
}

/// See the module.
#[derive(Default)]
pub struct Rules {
    intercept: Vec<Place>,
    rules: Vec<Rule>,
}

impl Rules {
    /// Those in a file.
    pub fn load(path: &Path) -> Result<Self, RulesError> {
        let failed = |error| RulesError::File(path.to_owned(), error);
        Self::parse(path, &file::read(path).map_err(failed)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, RulesError> {
        let malformed = |why| RulesError::Malformed(path.to_owned(), why);
        let file: File =
            toml::from_str(text).map_err(|error| malformed(error.to_string().trim().to_owned()))?;
        if file.rule.len() > MAX_RULES {
            return Err(malformed(format!("there are more than {MAX_RULES}")));
        }
        let understood = |(index, written): (usize, Written)| {
            let wrong = |why| RulesError::Rule(path.to_owned(), index + 1, why);
            written.understood().map_err(wrong)
        };
        let rules = file.rule.into_iter().enumerate().map(understood).collect::<Result<_, _>>()?;
        Ok(Self { intercept: file.intercept, rules })
    }

    /// Whether tunnels to there are looked into.
    pub fn intercepts(&self, to: &Authority) -> bool {
        self.intercept.iter().any(|place| place.has(to))
    }

    /// Whether a port is named that is looked into there.
    pub fn names_port(&self, to: &Authority) -> bool {
        self.intercept.iter().any(|place| place.names_port(to))
    }

    /// The places that are looked into, for people; nothing where there are none.
    pub fn intercepted(&self) -> Option<String> {
        let names: Vec<_> = self.intercept.iter().map(Place::to_string).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Whether any of them is for registries.
    pub fn want_registries(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == Action::Registry)
    }

    /// What becomes of a request; the number of the rule that makes no URL of it.
    pub fn decide(
        &self,
        method: &Method,
        url: &CanonicalUrl,
        headers: &HeaderMap,
    ) -> Result<Decided<'_>, usize> {
        let mut url = url.clone();
        for (rule, number) in self.rules.iter().zip(1..) {
            if !rule.fits(method, &url, headers) {
                continue;
            }
            let Action::Redirect(to) = &rule.action else {
                return Ok(Decided { url, action: &rule.action, rule: number });
            };
            let other = CanonicalUrl::parse(&rule.url.replace(url.as_str(), to));
            let is_web = |url: &CanonicalUrl| matches!(url.url().scheme(), "http" | "https");
            url = other.ok().filter(is_web).ok_or(number)?;
        }
        Ok(Decided { url, action: &Action::Direct, rule: 0 })
    }
}

impl Rule {
    fn fits(&self, method: &Method, url: &CanonicalUrl, headers: &HeaderMap) -> bool {
        let has_header = |(name, pattern): &(HeaderName, Regex)| {
            let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.any(|value| pattern.is_match(value))
        };
        let has_parameter = |(name, pattern): &(String, Regex)| {
            url.url().query_pairs().any(|(own, value)| own == *name && pattern.is_match(&value))
        };
        (self.methods.is_empty() || self.methods.contains(method))
            && self.url.is_match(url.as_str())
            && self.headers.iter().all(has_header)
            && self.query.iter().all(has_parameter)
    }
}

impl Written {
    fn understood(self) -> Result<Rule, String> {
        let method = |text: &String| {
            Method::from_bytes(text.as_bytes()).map_err(|_| format!("'{text}' is no method"))
        };
        let methods = self.method.iter().map(method).collect::<Result<_, _>>()?;
        let header = |(name, text): (&String, &String)| {
            let known = name.parse::<HeaderName>();
            let known = known.map_err(|_| format!("'{name}' is no header's name"))?;
            Ok::<_, String>((known, pattern(text)?))
        };
        let headers = self.header.iter().map(header).collect::<Result<_, _>>()?;
        let parameter =
            |(name, text): (&String, &String)| Ok::<_, String>((name.clone(), pattern(text)?));
        let query = self.query.iter().map(parameter).collect::<Result<_, _>>()?;
        let url = pattern(&self.url)?;
        let action = self.action()?;
        Ok(Rule { url, methods, headers, query, action })
    }

    fn action(self) -> Result<Action, String> {
        let only = |given: bool, key: &str, word: &str| match given {
            true => Err(format!("{key} is for action = \"{word}\" only")),
            false => Ok(()),
        };
        if self.action != Word::Swarm {
            only(self.ignore_query.is_some(), "ignore-query", "swarm")?;
            only(self.with_login.is_some(), "with-login", "swarm")?;
        }
        if self.action != Word::Redirect {
            only(self.to.is_some(), "to", "redirect")?;
        }
        Ok(match self.action {
            Word::Direct => Action::Direct,
            Word::Registry => Action::Registry,
            Word::Refuse => Action::Refuse,
            Word::Swarm => Action::Swarm(Shared {
                ignore_query: self.ignore_query.unwrap_or_default(),
                with_login: self.with_login.unwrap_or_default(),
            }),
            Word::Redirect => {
                Action::Redirect(self.to.ok_or("a redirect needs to = \"URL\", where it leads")?)
            }
        })
    }
}

fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(MAX_PATTERN).dfa_size_limit(MAX_PATTERN).build();
    built.map_err(|error| error.to_string().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, String> {
        Rules::parse(Path::new("rules.toml"), text).map_err(|error| error.to_string())
    }

    fn decided(rules: &Rules, method: Method, url: &str, headers: &HeaderMap) -> (String, Action) {
        let url = CanonicalUrl::parse(url).unwrap();
        let decided = rules.decide(&method, &url, headers).unwrap();
        (decided.url.as_str().to_owned(), decided.action.clone())
    }

    const RULES: &str = r#"
        intercept = ["*.pypi.test", "registry.test:5000"]

        [[rule]]
        url = '^http://plain\.test/'
        to = "https://plain.test/"
        action = "redirect"

        [[rule]]
        url = '^https://old\.test/(?<rest>.*)$'
        to = 'https://new.test/was/$rest'
        action = "redirect"

        [[rule]]
        url = '/private/'
        action = "refuse"

        [[rule]]
        url = '\.whl$'
        method = ["GET"]
        header = { user-agent = '^pip/' }
        action = "swarm"

        [[rule]]
        url = '^https://new\.test/'
        query = { kind = '^(a|b)$' }
        ignore-query = ["session"]
        with-login = true
        action = "swarm"

        [[rule]]
        url = '^https://registry\.test:5000/v2/'
        action = "registry"
    "#;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = rules(RULES).unwrap();
        let none = HeaderMap::new();
        let mut pip = HeaderMap::new();
        pip.insert("user-agent", "pip/25.1".parse().unwrap());
        let direct = |url: &str| (url.to_owned(), Action::Direct);
        let (shared, private) = (
            Shared { ignore_query: Vec::new(), with_login: false },
            Shared { ignore_query: vec!["session".to_owned()], with_login: true },
        );
        let wheel = "http://files.test/a.whl";
        for (method, url, headers, expected) in [
            (Method::GET, wheel, &none, direct(wheel)),
            (Method::POST, wheel, &pip, direct(wheel)),
            (Method::GET, wheel, &pip, (wheel.to_owned(), Action::Swarm(shared))),
            (Method::GET, "http://x.test/private/y", &none, {
                ("http://x.test/private/y".to_owned(), Action::Refuse)
            }),
            (Method::PUT, "http://plain.test/x", &none, direct("https://plain.test/x")),
            (Method::GET, "https://old.test/y?kind=b", &none, {
                ("https://new.test/was/y?kind=b".to_owned(), Action::Swarm(private))
            }),
            (Method::GET, "https://new.test/y?kind=c", &none, direct("https://new.test/y?kind=c")),
        ] {
            assert_eq!(decided(&rules, method, url, headers), expected, "{url}");
        }
        let to = |text| Authority::of_tunnel(text).unwrap();
        assert!(rules.want_registries() && rules.intercepts(&to("files.pypi.test:443")));
        assert!(rules.names_port(&to("registry.test:5000")));
        assert!(
            !rules.intercepts(&to("registry.test:443")) && !rules.intercepts(&to("x.test:443"))
        );
        assert_eq!(rules.intercepted().as_deref(), Some("*.pypi.test, registry.test:5000"));
    }

    #[test]
    fn a_redirect_that_leads_nowhere_is_told_by_its_number() {
        let text = "[[rule]]\nurl = '^http://a.test/'\naction = 'redirect'\nto = 'file:///'\n";
        let url = CanonicalUrl::parse("http://a.test/x").unwrap();
        let rules = rules(text).unwrap();
        assert_eq!(rules.decide(&Method::GET, &url, &HeaderMap::new()).unwrap_err(), 1);
    }

    #[test]
    fn what_is_no_rule_is_refused_and_said_so() {
        for (text, says) in [
            ("[[rule]]\nurl = '('\naction = 'direct'", "rule 1 of rules.toml: "),
            ("[[rule]]\nurl = 'a{9999}{9999}'\naction = 'direct'", "rule 1"),
            ("[[rule]]\nurl = 'a'\naction = 'swarn'", "unknown variant `swarn`"),
            ("[[rule]]\nurl = 'a'\naction = 'redirect'", "a redirect needs to ="),
            ("[[rule]]\nurl = 'a'\naction = 'direct'\nto = 'x'", "to is for action = \"redirect\""),
            ("[[rule]]\nurl = 'a'\naction = 'direct'\nwith-login = true", "with-login is for"),
            ("[[rule]]\nurl = 'a'\naction = 'direct'\nmethod = ['G T']", "'G T' is no method"),
            ("[[rule]]\nurl = 'a'\naction = 'direct'\nheader = {'a b' = ''}", "no header's name"),
            ("[[rule]]\naction = 'direct'", "missing field `url`"),
            ("intercept = ['h/x']", "names no hosts"),
            ("other = 1", "unknown field `other`"),
        ] {
            let error = rules(text).err().unwrap();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
