//! Names in a layer that are no entries: they say what the layer hides of those below it.

/// What a name of a layer says of lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark<'a> {
    /// `.wh..wh..opq`: everything in this directory is hidden.
    Opaque,
    /// `.wh.NAME`: this name is.
    Hides(&'a [u8]),
    /// `.wh..wh.…`: what aufs kept for itself, which is nothing to anybody else.
    Nothing,
}

const PREFIX: &[u8] = b".wh.";

impl<'a> Mark<'a> {
    /// What a name says; `None` of an ordinary entry.
    pub fn of(name: &'a [u8]) -> Option<Self> {
        let marked = name.strip_prefix(PREFIX)?;
        Some(match marked {
            b".wh..opq" => Self::Opaque,
            _ if marked.starts_with(PREFIX) => Self::Nothing,
            _ => Self::Hides(marked),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_names() {
        for (name, mark) in [
            (&b".wh.a"[..], Some(Mark::Hides(b"a"))),
            (b".wh..a", Some(Mark::Hides(b".a"))),
            (b".wh.", Some(Mark::Hides(b""))),
            (b".wh...", Some(Mark::Hides(b".."))),
            (b".wh..wh..opq", Some(Mark::Opaque)),
            (b".wh..wh.plnk", Some(Mark::Nothing)),
            (b".wh..wh..opq2", Some(Mark::Nothing)),
            (b".wh..wh.", Some(Mark::Nothing)),
            (b".wh", None),
            (b".wha", None),
            (b"a.wh.b", None),
        ] {
            assert_eq!(Mark::of(name), mark, "{}", name.escape_ascii());
        }
    }
}
