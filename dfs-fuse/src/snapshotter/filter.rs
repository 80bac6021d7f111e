//! Filters of containerd's lists, as far as it sends them: fields of a snapshot that are there, equal to a text, or not
//! equal to it. Pure, and bounded.

use super::store::{Info, SnapshotError};

/// Longest filter.
const MAX_FILTER: usize = 16 << 10;
/// Filters in a request, and parts of a filter.
const MAX_PARTS: usize = 32;

/// Snapshots that one of these holds for; all where there are none.
#[derive(Debug, PartialEq, Eq)]
pub struct Filters(Vec<Vec<Part>>);

#[derive(Debug, PartialEq, Eq)]
struct Part {
    field: Field,
    wants: Wants,
}

#[derive(Debug, PartialEq, Eq)]
enum Field {
    Name,
    Parent,
    Kind,
    Label(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Wants {
    Something,
    Equal(String),
    Other(String),
}

fn refused(filter: &str, why: &str) -> SnapshotError {
    let shown = dfs_model::printable(&dfs_model::shortened(filter, 200));
    SnapshotError::Invalid(format!("the filter '{shown}' {why}"))
}

impl Filters {
    /// Reads the filters of a request.
    pub fn parse(filters: &[String]) -> Result<Self, SnapshotError> {
        if filters.len() > MAX_PARTS {
            return Err(SnapshotError::Invalid(format!("at most {MAX_PARTS} filters are taken")));
        }
        let filters = filters.iter().filter(|filter| !filter.is_empty());
        filters.map(|filter| parse(filter)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a snapshot is wanted.
    pub fn wants(&self, info: &Info) -> bool {
        self.0.is_empty() || self.0.iter().any(|parts| parts.iter().all(|part| part.holds(info)))
    }
}

impl Part {
    fn holds(&self, info: &Info) -> bool {
        let value = match &self.field {
            Field::Name => Some(info.name.as_str()),
            Field::Parent => Some(info.parent.as_str()),
            Field::Kind => Some(info.kind.name()),
            Field::Label(name) => info.labels.get(name).map(String::as_str),
        };
        match &self.wants {
            Wants::Something => value.is_some_and(|value| !value.is_empty()),
            Wants::Equal(wanted) => value.unwrap_or_default() == wanted,
            Wants::Other(unwanted) => value.unwrap_or_default() != unwanted,
        }
    }
}

fn parse(filter: &str) -> Result<Vec<Part>, SnapshotError> {
    let refuse = |why| refused(filter, why);
    if filter.len() > MAX_FILTER {
        return Err(refuse("is too long"));
    }
    let (mut parts, mut rest) = (Vec::new(), filter);
    loop {
        if parts.len() == MAX_PARTS {
            return Err(refuse("has too many parts"));
        }
        let (field, behind) = field(rest).map_err(refuse)?;
        let (wants, behind) = wants(behind).map_err(refuse)?;
        parts.push(Part { field, wants });
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None if behind.is_empty() => return Ok(parts),
            None => return Err(refuse("has something behind a value")),
        }
    }
}

fn field(text: &str) -> Result<(Field, &str), &'static str> {
    if let Some(name) = text.strip_prefix("labels.") {
        let (name, behind) = match name.starts_with('"') {
            true => quoted(name)?,
            false => bare(name, |letter| letter.is_alphanumeric() || matches!(letter, '_' | '.')),
        };
        return Ok((Field::Label(name), behind));
    }
    let (name, behind) = bare(text, char::is_alphanumeric);
    let field = match name.as_str() {
        "name" => Field::Name,
        "parent" => Field::Parent,
        "kind" => Field::Kind,
        _ => return Err("is not about name, parent, kind or labels"),
    };
    Ok((field, behind))
}

fn wants(text: &str) -> Result<(Wants, &str), &'static str> {
    if text.is_empty() || text.starts_with(',') {
        return Ok((Wants::Something, text));
    }
    let (wants, value): (fn(String) -> Wants, _) = match text.split_at_checked(2) {
        Some(("==", value)) => (Wants::Equal, value),
        Some(("!=", value)) => (Wants::Other, value),
        Some(("~=", _)) => return Err("has a pattern, which is not known here"),
        _ => return Err("has neither == nor != behind a field"),
    };
    let (value, behind) = match value.starts_with('"') {
        true => quoted(value)?,
        false => bare(value, |letter| !matches!(letter, ',' | '"') && !letter.is_whitespace()),
    };
    Ok((wants(value), behind))
}

fn bare(text: &str, belongs: impl Fn(char) -> bool) -> (String, &str) {
    let end = text.find(|letter| !belongs(letter)).unwrap_or(text.len());
    (text[..end].to_owned(), &text[end..])
}

/// A text in quotes, as Go writes one; what comes behind it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut letters = text.char_indices().skip(1);
    let mut read = String::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((read, &text[at + 1..])),
            '\\' => {
                let escaped = letters.next().map(|(_, letter)| letter);
                let digits = match escaped {
                    Some('x') => 2,
                    Some('u') => 4,
                    Some('U') => 8,
                    _ => 0,
                };
                read.push(match escaped {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some(same @ ('"' | '\\' | '\'')) => same,
                    Some('x' | 'u' | 'U') => {
                        let hex: String =
                            letters.by_ref().take(digits).map(|(_, letter)| letter).collect();
                        let number = u32::from_str_radix(&hex, 16).ok();
                        let letter =
                            number.filter(|_| hex.len() == digits).and_then(char::from_u32);
                        letter.ok_or("has an escape that stands for nothing")?
                    }
                    _ => return Err("has an escape that is not known"),
                });
            }
            other => read.push(other),
        }
    }
    Err("has a quote that does not end")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::snapshotter::store::Kind;

    fn info() -> Info {
        let labels = [("containerd.io/snapshot.ref".to_owned(), "sha256:ab".to_owned())];
        Info {
            name: "k8s.io/7/sha256:ab".to_owned(),
            parent: "k8s.io/6/a \"quoted\" one".to_owned(),
            kind: Kind::Committed,
            created_ns: 0,
            updated_ns: 0,
            labels: BTreeMap::from(labels),
        }
    }

    fn wants(filters: &[&str]) -> bool {
        let filters: Vec<_> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        Filters::parse(&filters).unwrap().wants(&info())
    }

    #[test]
    fn what_containerd_asks_for_is_found() {
        let by_ref = r#"labels."containerd.io/snapshot.ref"==sha256:ab"#;
        assert!(wants(&[]));
        assert!(wants(&[by_ref]));
        assert!(wants(&[&format!(r#"{by_ref},parent=="k8s.io/6/a \"quoted\" one""#)]));
        assert!(!wants(&[&format!(r#"{by_ref},parent=="""#)]));
        assert!(wants(&["kind==Active", "kind==Committed"]));
        assert!(wants(&[r#"labels."containerd.io/snapshot.ref",name!=other"#]));
        assert!(!wants(&["labels.other"]));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "size==3",
            "name~=a",
            "name=a",
            r#"name=="a"#,
            r#"name=="a"b"#,
            r#"name=="\q""#,
            "name==a,,",
            &format!("name=={}", "a".repeat(MAX_FILTER)),
            &"name,".repeat(MAX_PARTS + 1),
        ] {
            let refused = Filters::parse(&[bad.to_owned()]);
            assert!(matches!(refused, Err(SnapshotError::Invalid(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(filter in r#"(labels\.|name|parent|==|!=|["\\,xuU=a-f0-9é ]){0,20}"#) {
            let _ = Filters::parse(&[filter]).map(|filters| filters.wants(&info()));
        }

        #[test]
        fn what_is_quoted_reads_back(text in r#"[a-zé"\\/: ,]{0,20}"#) {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            let info = Info { parent: text, ..info() };
            let filters = Filters::parse(&[format!("parent==\"{quoted}\"")]).unwrap();
            prop_assert!(filters.wants(&info));
        }
    }
}
