//! A profile as a file: what it is about, its ranges in few bytes, and a checksum over all of it.
//!
//! `dfstrace`, a format number, the subject, then as variable-length numbers the runs, the count of ranges and for each
//! its space, first group, groups, rank and history; BLAKE3 of all that at the end. Whoever reads one trusts nothing.

use dfs_model::GroupRange;

use super::profile::{MAX_RANK, Touched};
use super::{MAX_GROUPS, MAX_RANGE, MAX_RANGES, Place, Profile, Subject};

const MAGIC: &[u8; 8] = b"dfstrace";
const FORMAT: u8 = 1;
const CHECKSUM: usize = 32;
const SUBJECT_AT: usize = MAGIC.len() + 1;
const HEAD: usize = SUBJECT_AT + 32;

/// Longest profile.
pub const MAX_BYTES: usize = 2 << 20;

/// Why something is not a profile that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Something else.
    #[error("it is not a prefetch profile")]
    NotOne,
    /// Written by a later version.
    #[error("it has format {0}, which this version does not read")]
    Format(u8),
    /// Cut off or changed on its way.
    #[error("it is damaged: its checksum does not match")]
    Damaged,
    /// Made by something that is not dfs.
    #[error("it makes no sense: {0}")]
    Nonsense(&'static str),
}

impl Profile {
    /// As a file about `subject`.
    pub fn encode(&self, subject: Subject) -> Vec<u8> {
        let mut bytes = [MAGIC, &[FORMAT][..], &subject.0].concat();
        put(&mut bytes, self.runs.into());
        put(&mut bytes, self.touched.len() as u64);
        for Touched { place: Place { space, groups }, rank, history } in &self.touched {
            let numbers = [u64::from(*space), groups.first, groups.count, *rank];
            numbers.into_iter().for_each(|number| put(&mut bytes, number));
            bytes.push(*history);
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// Reads one, and what it is about.
    pub fn decode(bytes: &[u8]) -> Result<(Subject, Self), ProfileError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ProfileError::NotOne);
        }
        match bytes.get(MAGIC.len()) {
            Some(&FORMAT) => {}
            Some(other) => return Err(ProfileError::Format(*other)),
            None => return Err(ProfileError::Damaged),
        }
        if bytes.len() > MAX_BYTES {
            return Err(ProfileError::Nonsense("it is too long"));
        }
        let end = bytes.len().checked_sub(CHECKSUM).filter(|end| *end >= HEAD);
        let (content, checksum) = bytes.split_at(end.ok_or(ProfileError::Damaged)?);
        if blake3::hash(content).as_bytes() != checksum {
            return Err(ProfileError::Damaged);
        }
        let mut subject = [0; 32];
        subject.copy_from_slice(&content[SUBJECT_AT..HEAD]);
        Ok((Subject(subject), Self::read(&content[HEAD..])?))
    }

    fn read(mut rest: &[u8]) -> Result<Self, ProfileError> {
        let rest = &mut rest;
        let runs = u32::try_from(take(rest)?).map_err(|_| ProfileError::Nonsense("its runs"))?;
        let count = usize::try_from(take(rest)?).unwrap_or(usize::MAX);
        if count > MAX_RANGES {
            return Err(ProfileError::Nonsense("it has too many ranges"));
        }
        let touched = (0..count).map(|_| range(rest)).collect::<Result<Vec<_>, _>>()?;
        if !rest.is_empty() {
            return Err(ProfileError::Nonsense("something follows its end"));
        }
        let mut places: Vec<Place> = touched.iter().map(|touched| touched.place).collect();
        places.sort_unstable();
        let overlap = |two: &[Place]| {
            two[0].space == two[1].space && two[0].groups.end() > two[1].groups.first
        };
        if places.windows(2).any(overlap) {
            return Err(ProfileError::Nonsense("it names a group twice"));
        }
        Ok(Self { runs, touched })
    }
}

fn range(rest: &mut &[u8]) -> Result<Touched, ProfileError> {
    let space = u16::try_from(take(rest)?).map_err(|_| ProfileError::Nonsense("a space"))?;
    let groups = GroupRange::new(take(rest)?, take(rest)?);
    let fits = groups.first <= MAX_GROUPS && (1..=MAX_RANGE).contains(&groups.count);
    if !fits || groups.end() > MAX_GROUPS {
        return Err(ProfileError::Nonsense("a range of groups"));
    }
    let rank = take(rest)?;
    let (history, after) = rest.split_first().ok_or(ProfileError::Nonsense("it ends early"))?;
    if rank > MAX_RANK || *history == 0 {
        return Err(ProfileError::Nonsense("when a range was touched"));
    }
    *rest = after;
    Ok(Touched { place: Place::new(space, groups), rank, history: *history })
}

/// LEB128.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Result<u64, ProfileError> {
    let mut number = 0;
    for at in 0..9 {
        let byte = *rest.get(at).ok_or(ProfileError::Nonsense("it ends early"))?;
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Ok(number);
        }
    }
    Err(ProfileError::Nonsense("a number is too large"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::profile::tests::run;
    use super::*;

    fn subject() -> Subject {
        Subject([7; 32])
    }

    /// With the checksum that it would have.
    fn signed(content: &[u8]) -> Vec<u8> {
        [content, blake3::hash(content).as_bytes()].concat()
    }

    /// What follows the head, in place of what was there.
    fn saying(numbers: &[u64]) -> Result<Profile, ProfileError> {
        let empty = Profile::default().encode(subject());
        let mut content = empty[..HEAD].to_vec();
        numbers.iter().for_each(|number| put(&mut content, *number));
        Profile::decode(&signed(&content)).map(|(_, profile)| profile)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(runs in prop::collection::vec(run(), 0..5)) {
            let profile = runs.iter().fold(Profile::default(), |profile, run| profile.with_run(run));
            prop_assert_eq!(Profile::decode(&profile.encode(subject())), Ok((subject(), profile)));
        }

        #[test]
        fn a_byte_changed_or_cut_off_is_noticed(run in run(), at: prop::sample::Index, by in 1u8..) {
            let bytes = Profile::default().with_run(&run).encode(subject());
            let at = at.index(bytes.len());
            let mut changed = bytes.clone();
            changed[at] ^= by;
            prop_assert!(Profile::decode(&changed).is_err());
            prop_assert!(Profile::decode(&bytes[..at]).is_err());
        }

        #[test]
        fn whatever_is_sent_is_read_or_refused(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let empty = Profile::default().encode(subject());
            if let Ok((about, profile)) = Profile::decode(&signed(&[&empty[..HEAD], &content].concat())) {
                // What is taken for one behaves as one.
                let again = profile.with_run(&[Place::new(0, GroupRange::new(5, 3))]);
                prop_assert!(Profile::decode(&again.encode(about)).is_ok());
            }
        }
    }

    #[test]
    fn what_no_recorder_makes_is_refused() {
        assert!(saying(&[1, 1, 0, 5, 3, 0, 1]).is_ok());
        for nonsense in [
            &[1, u64::MAX >> 1][..],
            &[1, MAX_RANGES as u64 + 1],
            &[1 << 40, 0],
            &[1, 1, 1 << 20, 5, 3, 0, 1],
            &[1, 1, 0, MAX_GROUPS, 3, 0, 1],
            &[1, 1, 0, 5, MAX_RANGE + 1, 0, 1],
            &[1, 1, 0, 5, 0, 0, 1],
            &[1, 1, 0, 5, 3, MAX_RANK + 1, 1],
            &[1, 1, 0, 5, 3, 0, 0],
            &[1, 2, 0, 5, 3, 0, 1, 0, 7, 1, 9, 1],
            &[1, 1, 0, 5, 3, 0, 1, 0],
            &[1, 1, 0, 5],
        ] {
            assert!(matches!(saying(nonsense), Err(ProfileError::Nonsense(_))), "{nonsense:?}");
        }
    }

    #[test]
    fn what_is_something_else_is_told_apart() {
        assert_eq!(Profile::decode(b""), Err(ProfileError::NotOne));
        assert_eq!(Profile::decode(b"{\"version\": 1}"), Err(ProfileError::NotOne));
        let mut later = Profile::default().encode(subject());
        later[MAGIC.len()] = 2;
        assert_eq!(Profile::decode(&later), Err(ProfileError::Format(2)));
        let endless = [MAGIC, &[FORMAT][..], &vec![0; MAX_BYTES]].concat();
        assert!(matches!(Profile::decode(&endless), Err(ProfileError::Nonsense(_))));
    }
}
