//! Access control lists as tars say them, in text, as the attributes that a kernel keeps them in.
//!
//! A tar names users and groups; only some say their numbers too. An entry of a name without a number means
//! nothing on another machine and is left out, root's apart.

/// Version of the attribute's format.
const VERSION: u32 = 2;
/// The number of whoever is not named.
const UNNAMED: u32 = u32::MAX;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Who an entry is for, in the order in which a kernel wants them, and what they may do.
type Entry = (u16, u32, u16);

/// The value of `system.posix_acl_access`; `None` where the text is none, or says what the mode says.
pub(super) fn access(text: &[u8]) -> Option<Vec<u8>> {
    encoded(&parsed(text)?, 4)
}

/// The value of `system.posix_acl_default`; `None` where the text is none.
pub(super) fn default(text: &[u8]) -> Option<Vec<u8>> {
    encoded(&parsed(text)?, 3)
}

/// The permissions of what has this list: the group's are the mask, though bsdtar keeps the group's own there, and
/// a kernel that finds none asks no list.
pub(super) fn permissions_with(list: &[u8], mode: u16) -> u16 {
    let entries = || list.get(4..).unwrap_or_default().chunks_exact(8);
    let may = |tag: u16| {
        let entry = entries().find(|entry| entry[..2] == tag.to_le_bytes())?;
        Some(u16::from(entry[2] & 7))
    };
    let group = may(MASK).or_else(|| may(OWNING_GROUP));
    match (may(OWNER), group, may(OTHER)) {
        (Some(owner), Some(group), Some(other)) => mode & !0o777 | owner << 6 | group << 3 | other,
        _ => mode,
    }
}

fn encoded(entries: &[Entry], least: usize) -> Option<Vec<u8>> {
    let count = |tag| entries.iter().filter(|entry| entry.0 == tag).count();
    let needs_mask = count(USER) + count(GROUP) > 0;
    let whole = [OWNER, OWNING_GROUP, OTHER].into_iter().all(|tag| count(tag) == 1);
    if !whole || count(MASK) > 1 || needs_mask && count(MASK) == 0 || entries.len() < least {
        return None;
    }
    let mut out = VERSION.to_le_bytes().to_vec();
    for (tag, id, may) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(may.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    Some(out)
}

fn parsed(text: &[u8]) -> Option<Vec<Entry>> {
    let lines = text.split(|byte| matches!(byte, b'\n' | b','));
    let words = lines.filter_map(|line| {
        let end = line.iter().position(|byte| *byte == b'#').unwrap_or(line.len());
        Some(line[..end].trim_ascii()).filter(|word| !word.is_empty())
    });
    let mut entries = Vec::new();
    for word in words {
        entries.extend(entry(word)?);
    }
    entries.sort_unstable();
    Some(entries)
}

/// One entry, `tag:name:permissions` or `tag:name:permissions:number`; nothing where the name has no number.
fn entry(word: &[u8]) -> Option<Option<Entry>> {
    let mut parts = word.split(|byte| *byte == b':');
    let (tag, name) = (parts.next()?, parts.next()?);
    let may = permissions(parts.next()?)?;
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
    let id = parts.next().map_or_else(|| number(name), number);
    let tag = match tag {
        b"user" | b"u" if name.is_empty() => OWNER,
        b"user" | b"u" => USER,
        b"group" | b"g" if name.is_empty() => OWNING_GROUP,
        b"group" | b"g" => GROUP,
        b"mask" | b"m" => MASK,
        b"other" | b"o" => OTHER,
        _ => return None,
    };
    Some(match (tag, id) {
        // Nobody has this number, and a kernel refuses the list that says so.
        (USER | GROUP, Some(UNNAMED)) => None,
        (USER | GROUP, Some(id)) => Some((tag, id, may)),
        (USER | GROUP, None) if name == b"root" => Some((tag, 0, may)),
        (USER | GROUP, None) => None,
        _ => Some((tag, UNNAMED, may)),
    })
}

fn permissions(text: &[u8]) -> Option<u16> {
    text.iter().try_fold(0, |may, letter| {
        Some(
            may | match letter {
                b'r' => 4,
                b'w' => 2,
                b'x' => 1,
                b'-' => 0,
                _ => return None,
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(entries: &[Entry]) -> Option<Vec<u8>> {
        encoded(entries, 0)
    }

    #[test]
    fn texts_of_gnu_tar_and_of_bsdtar_are_read() {
        let gnu = b"user::rw-\nuser:4242:rw-\nuser:alice:r--\ngroup::r--\ngroup:root:---\nmask::rw-\nother::r--\n";
        let bsd = b"user::rw-,group::r--,other::r--,user:alice:rw-:4242,group:root:---:0,mask::rw-";
        let wanted = [
            (OWNER, UNNAMED, 6),
            (USER, 4242, 6),
            (OWNING_GROUP, UNNAMED, 4),
            (GROUP, 0, 0),
            (MASK, UNNAMED, 6),
            (OTHER, UNNAMED, 4),
        ];
        assert_eq!(access(gnu), value(&wanted));
        assert_eq!(access(bsd), value(&wanted));
        // As setfattr(1) shows one that setfacl(1) made.
        let first = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 0x92, 0x10, 0, 0];
        assert_eq!(access(gnu).unwrap()[..20], first);
    }

    #[test]
    fn what_the_mode_says_is_no_list_and_a_default_is_one() {
        let base = b"user::rwx\ngroup::r-x\nother::r-x\n";
        assert_eq!(access(base), None);
        assert_eq!(default(base).map(|value| value.len()), Some(4 + 3 * 8));
    }

    #[test]
    fn the_mask_is_what_the_mode_says_of_the_group() {
        let list = access(b"user::rw-,user:7:r--,group::---,mask::r--,other::---").unwrap();
        assert_eq!(permissions_with(&list, 0o4600), 0o4640);
        assert_eq!(permissions_with(&list, 0o640), 0o640);
        let none = default(b"user::rwx,group::r-x,other::--x").unwrap();
        assert_eq!(permissions_with(&none, 0o1000), 0o1751);
        assert_eq!(permissions_with(b"\x02\0\0\0\x01\0", 0o600), 0o600);
    }

    #[test]
    fn what_no_kernel_takes_is_left_out() {
        for bad in [
            &b""[..],
            b"user::rwx",
            b"user::rwx,group::r-x,other::r-x,user:1:r--",
            b"user::rwx,user::rwx,group::r-x,other::r-x,mask::rwx",
            b"user::rwx,group::r-x,other::r-x,mask::rwz",
            b"owner@:rwx::allow",
            b"user::rwx,group::r-x,other::r-x,user:4294967295:rwx",
            b"user",
        ] {
            assert_eq!(access(bad), None, "{}", bad.escape_ascii());
        }
    }
}
