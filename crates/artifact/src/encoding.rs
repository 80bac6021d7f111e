//! Fields of the frozen encodings: little-endian numbers, length-prefixed bytes, versions.

use dfs_model::Validator;

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("paths and validators are short");
    out.extend(length.to_le_bytes());
    out.extend(bytes);
}

pub(crate) fn put_validator(out: &mut Vec<u8>, validator: &Validator) {
    let Validator { etag, modified, version, length } = validator;
    for field in [etag, modified, version] {
        out.push(u8::from(field.is_some()));
        put_bytes(out, field.as_deref().unwrap_or_default().as_bytes());
    }
    out.push(u8::from(length.is_some()));
    out.extend(length.unwrap_or_default().to_le_bytes());
}

pub(crate) fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

pub(crate) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(crate) fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest, 8)?.try_into().ok().map(u64::from_le_bytes)
}

pub(crate) fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_u32(rest)?;
    take(rest, usize::try_from(length).ok()?)
}

fn take_text(rest: &mut &[u8]) -> Option<Option<String>> {
    let there = take(rest, 1)?[0] == 1;
    let text = String::from_utf8(take_bytes(rest)?.to_vec()).ok()?;
    Some(there.then_some(text))
}

pub(crate) fn take_validator(rest: &mut &[u8]) -> Option<Validator> {
    let (etag, modified, version) = (take_text(rest)?, take_text(rest)?, take_text(rest)?);
    let known = take(rest, 1)?[0] == 1;
    let length = Some(take_u64(rest)?).filter(|_| known);
    Some(Validator { etag, modified, version, length })
}
