//! Just enough XML: the text of each element with the names above it. One pass, no entity but the
//! five of XML itself, everything bounded.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Elements within one another; what stores answer has four.
const MAX_DEPTH: usize = 16;

/// Longest text of one element: a key of 1024 bytes, percent-encoded, is 3072.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// Calls `closed` at the end of every element, with the names from the root down to it and the text
/// directly in it.
pub(super) fn walk(
    document: &[u8],
    mut closed: impl FnMut(&[&str], &str) -> Result<(), String>,
) -> Result<(), String> {
    let document = std::str::from_utf8(document).map_err(|_| "its answer is not UTF-8")?;
    let mut reader = Reader::from_str(document);
    let mut open: Vec<(String, String)> = Vec::new();
    loop {
        let event =
            reader.read_event().map_err(|error| format!("its answer is no XML: {error}"))?;
        match event {
            Event::Start(tag) => {
                if open.len() == MAX_DEPTH {
                    return Err("its answer is nested too deeply".to_owned());
                }
                open.push((name(tag.local_name().as_ref()), String::new()));
            }
            Event::Empty(tag) => {
                open.push((name(tag.local_name().as_ref()), String::new()));
                close(&mut open, &mut closed)?;
            }
            Event::End(_) => close(&mut open, &mut closed)?,
            Event::Text(text) => append(&mut open, &text.xml10_content())?,
            Event::CData(text) => append(&mut open, &text.xml10_content())?,
            Event::GeneralRef(entity) => {
                let mut buffer = [0; 4];
                let unknown = || format!("its answer has the unknown entity '{}'", &*entity);
                let resolved = match entity.resolve_char_ref() {
                    Ok(Some(character)) => Some(&*character.encode_utf8(&mut buffer)),
                    _ => quick_xml::escape::resolve_xml_entity(&entity),
                };
                append(&mut open, resolved.ok_or_else(unknown)?)?;
            }
            Event::DocType(_) => return Err("its answer has a document type".to_owned()),
            Event::Eof if open.is_empty() => return Ok(()),
            Event::Eof => return Err("its answer ends early".to_owned()),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
        }
    }
}

fn name(local: &str) -> String {
    local.chars().take(64).collect()
}

fn append(open: &mut [(String, String)], text: &str) -> Result<(), String> {
    let Some((_, into)) = open.last_mut() else { return Ok(()) };
    if into.len() + text.len() > MAX_TEXT_BYTES {
        return Err("its answer has a text that is too long".to_owned());
    }
    into.push_str(text);
    Ok(())
}

fn close(
    open: &mut Vec<(String, String)>,
    closed: &mut impl FnMut(&[&str], &str) -> Result<(), String>,
) -> Result<(), String> {
    let names: Vec<&str> = open.iter().map(|(name, _)| &**name).collect();
    let text = open.last().map_or("", |(_, text)| &**text);
    closed(&names, text)?;
    open.pop();
    Ok(())
}
