//! Docker: `registry-mirrors` of the daemon. All else in the file stays as it is written.

use serde_json::Value;

use super::{PlaceError, PlanError, Told, Unfit};

const CONFIG: &str = "/etc/docker/daemon.json";
const KEY: &str = "registry-mirrors";

pub fn plan(
    told: &Told,
    text: &mut dyn FnMut(&str) -> Result<Option<String>, PlaceError>,
) -> Result<Vec<(String, String)>, PlanError> {
    let url = format!("http://{}", told.mirror);
    let after = with_mirror(text(CONFIG)?.as_deref(), &url)?;
    Ok(after.map(|after| (CONFIG.to_owned(), after)).into_iter().collect())
}

/// The text with the mirror before the others; `None` where it is there.
fn with_mirror(text: Option<&str>, url: &str) -> Result<Option<String>, Unfit> {
    let unfit = |why: String| Unfit::new(CONFIG, why);
    let quoted = Value::from(url).to_string();
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Ok(Some(format!("{{\n  \"{KEY}\": [{quoted}]\n}}\n")));
    };
    let parsed = serde_json::from_str::<Value>(text);
    let parsed = parsed.map_err(|error| unfit(format!("it cannot be read: {error}")))?;
    let object = parsed.as_object().ok_or_else(|| unfit("it is no object".to_owned()))?;
    let edited = match object.get(KEY) {
        None => beside(text, &format!("\"{KEY}\": [{quoted}]"), object.is_empty()),
        Some(Value::Array(known)) if known.iter().any(|known| names(known, url)) => {
            return Ok(None);
        }
        Some(Value::Array(known)) => within(text, &quoted, known.is_empty()),
        Some(_) => return Err(unfit(format!("`{KEY}` is no list"))),
    };
    let is_first = |text: &str| {
        let read = serde_json::from_str::<Value>(text).ok()?;
        Some(read.get(KEY)?.get(0)?.as_str()? == url)
    };
    let is_read = |edited: &String| is_first(edited) == Some(true);
    edited.filter(is_read).map(Some).ok_or_else(|| unfit(format!("`{KEY}` is not found in it")))
}

fn names(known: &Value, url: &str) -> bool {
    known.as_str().is_some_and(|known| known.trim_end_matches('/') == url)
}

/// One more member of the object, the first, as the others are laid out.
fn beside(text: &str, member: &str, is_alone: bool) -> Option<String> {
    let (before, after) = text.split_at(text.find('{')? + 1);
    let space: String = after.chars().take_while(|c| c.is_ascii_whitespace()).collect();
    let space = if is_alone { String::new() } else { space };
    let parting = if is_alone { "" } else { "," };
    Some(format!("{before}{space}{member}{parting}{after}"))
}

/// One more in the list, the first.
fn within(text: &str, quoted: &str, is_alone: bool) -> Option<String> {
    let (before, after) = text.split_at(value_at(text, KEY)? + 1);
    let space: String = after.chars().take_while(|c| c.is_ascii_whitespace()).collect();
    let space = if is_alone { String::new() } else { space };
    let parting = match is_alone {
        true => "",
        false if space.is_empty() => ", ",
        false => ",",
    };
    Some(format!("{before}{space}{quoted}{parting}{after}"))
}

/// Where the value of a member of the outermost object begins; the text is known to be JSON.
fn value_at(text: &str, key: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = end_of_text(bytes, at)?;
                let is_key =
                    serde_json::from_str::<String>(&text[at..end]).is_ok_and(|found| found == key);
                at = end;
                let rest = text[at..].trim_start();
                if depth == 1 && is_key && rest.starts_with(':') {
                    let value = rest[1..].trim_start();
                    return Some(text.len() - value.len());
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Behind the closing quotation mark of the text that begins here.
fn end_of_text(bytes: &[u8], begin: usize) -> Option<usize> {
    let mut at = begin + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}
