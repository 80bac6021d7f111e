//! Names of members: UTF-8 where they say so, else the bytes of a Unix, or code page 437 of a PC.

/// The upper half of code page 437.
const UPPER: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
                     └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// A name in code page 437.
pub(super) fn from_cp437(name: &[u8]) -> Vec<u8> {
    if name.is_ascii() {
        return name.to_vec();
    }
    let upper: Vec<char> = UPPER.chars().collect();
    let char_of = |&byte: &u8| match byte.checked_sub(128) {
        Some(at) => upper[usize::from(at)],
        None => char::from(byte),
    };
    name.iter().map(char_of).collect::<String>().into_bytes()
}

/// A name whose elements DOS's own separator joins.
pub(super) fn with_slashes(mut name: Vec<u8>) -> Vec<u8> {
    if !name.contains(&b'/') {
        name.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    }
    name
}

/// Info-ZIP's field with the name in UTF-8, where it is of this name.
pub(super) fn of_unicode(field: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let (sum, path) = field.strip_prefix(&[1])?.split_first_chunk()?;
    let mut crc = flate2::Crc::new();
    crc.update(name);
    let same = crc.sum() == u32::from_le_bytes(*sum) && std::str::from_utf8(path).is_ok();
    same.then(|| path.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_pc_become_utf_8() {
        assert_eq!(UPPER.chars().count(), 128);
        assert_eq!(from_cp437(b"gr\x81n\xff"), "grün\u{a0}".as_bytes());
        assert_eq!(with_slashes(b"a\\b".to_vec()), b"a/b");
        assert_eq!(with_slashes(b"a/b\\c".to_vec()), b"a/b\\c");
    }
}
