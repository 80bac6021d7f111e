//! Prefetch profiles that hosts tell each other: what readers of public content touch first.
//!
//! The scheduler keeps them as they came, in memory and so many bytes of them; what was asked for longest ago goes
//! first. It reads none: who follows one checks it, and it can name nothing outside of what it is about. Lost with the
//! process: hosts tell theirs again when their next run ends.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use dfs_proto::scheduler::{ProfileReply, ProfileRequest};
use tonic::Status;

/// Bytes of one, and of all.
const LONGEST: usize = 2 << 20;
const MOST: usize = 64 << 20;

/// What is counted for each beside its bytes.
const OVERHEAD: usize = 256;

/// Runs from which on one profile knows as much as another: the later one is kept.
const ENOUGH: u32 = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct Profiles {
    kept: HashMap<[u8; 32], Kept>,
    /// By when they were asked for last.
    order: BTreeMap<u64, [u8; 32]>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    profile: Bytes,
    runs: u32,
    asked: u64,
}

impl Profiles {
    /// Keeps what is told, and tells what is kept.
    pub fn answer(&mut self, request: ProfileRequest) -> Result<ProfileReply, Status> {
        let ProfileRequest { subject, profile, runs, .. } = request;
        let subject = <[u8; 32]>::try_from(&subject[..])
            .map_err(|_| Status::invalid_argument("what it is about is not 32 bytes"))?;
        if profile.len() > LONGEST {
            return Err(Status::invalid_argument("the profile is too long"));
        }
        if profile.is_empty() {
            let profile = self.asked(subject).unwrap_or_default();
            return Ok(ProfileReply { profile });
        }
        self.told(subject, profile, runs.min(ENOUGH));
        Ok(ProfileReply::default())
    }

    fn asked(&mut self, subject: [u8; 32]) -> Option<Bytes> {
        let kept = self.kept.get_mut(&subject)?;
        self.clock += 1;
        self.order.remove(&std::mem::replace(&mut kept.asked, self.clock));
        self.order.insert(self.clock, subject);
        Some(kept.profile.clone())
    }

    fn told(&mut self, subject: [u8; 32], profile: Bytes, runs: u32) {
        if self.kept.get(&subject).is_some_and(|kept| kept.runs > runs) {
            return;
        }
        self.forget(subject);
        self.clock += 1;
        self.bytes += profile.len() + OVERHEAD;
        self.kept.insert(subject, Kept { profile, runs, asked: self.clock });
        self.order.insert(self.clock, subject);
        while self.bytes > MOST
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, subject: [u8; 32]) {
        if let Some(kept) = self.kept.remove(&subject) {
            self.order.remove(&kept.asked);
            self.bytes -= kept.profile.len() + OVERHEAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subject: u32, profile: &[u8], runs: u32) -> ProfileRequest {
        let subject = [&subject.to_le_bytes()[..], &[0; 28]].concat();
        let (subject, profile) = (subject.into(), profile.to_vec().into());
        ProfileRequest { subject, profile, runs, ..ProfileRequest::default() }
    }

    fn known(profiles: &mut Profiles, subject: u32) -> Bytes {
        profiles.answer(request(subject, b"", 0)).unwrap().profile
    }

    #[test]
    fn the_one_of_more_runs_is_kept_and_of_many_the_latest() {
        let mut profiles = Profiles::default();
        assert_eq!(known(&mut profiles, 1), "");
        for (profile, runs, kept) in
            [("a", 1, "a"), ("b", 3, "b"), ("c", 2, "b"), ("d", u32::MAX, "d"), ("e", 9, "e")]
        {
            profiles.answer(request(1, profile.as_bytes(), runs)).unwrap();
            assert_eq!(known(&mut profiles, 1), kept);
        }
        assert_eq!(known(&mut profiles, 2), "");
    }

    #[test]
    fn there_are_so_many_bytes_of_them_and_who_was_not_asked_for_goes() {
        let mut profiles = Profiles::default();
        let large = vec![7; LONGEST];
        for subject in 0..100 {
            profiles.answer(request(subject, &large, 1)).unwrap();
            assert!(profiles.bytes <= MOST && profiles.order.len() == profiles.kept.len());
            assert_eq!(known(&mut profiles, 0).len(), LONGEST, "it is wanted");
        }
        assert_eq!(known(&mut profiles, 1), "");
        assert_eq!(known(&mut profiles, 99).len(), LONGEST);
    }

    #[test]
    fn what_is_none_is_refused() {
        let mut profiles = Profiles::default();
        assert!(profiles.answer(request(1, &vec![7; LONGEST + 1], 1)).is_err());
        let nothing = ProfileRequest { subject: vec![1; 31].into(), ..ProfileRequest::default() };
        assert!(profiles.answer(nothing).is_err());
        assert_eq!(profiles.bytes, 0);
    }
}
