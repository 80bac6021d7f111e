//! The content where it stands: what is mapped is in the page cache, and in no memory of this process's own.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};

use bytes::Bytes;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::super::{DirectGuard, Reads};
use super::StoredTask;

/// Contents of fewer bytes are read: a map takes whole pages, and there is a bound on how many there are.
const MAPPED_FROM: u64 = 1 << 20;

impl StoredTask {
    /// All of it, where it is long and every byte is here and in no doubt. It stays what it is when the task is evicted.
    pub fn mapped(&self) -> Option<Bytes> {
        let length = self.opened.length().filter(|length| *length >= MAPPED_FROM)?;
        let whole = self.read_directly(Reads::UntilSaid);
        if !self.complete() || self.opened.content.metadata().ok()?.len() < length {
            return None;
        }
        let map = Map::of(&self.opened.content, usize::try_from(length).ok()?, whole).ok()?;
        Some(Bytes::from_owner(map))
    }
}

/// The first bytes of a file, read only.
struct Map {
    at: NonNull<c_void>,
    length: usize,
    /// Nothing is taken out of it.
    _whole: DirectGuard,
}

// SAFETY: nothing writes through it, and it is taken away only once, when it is dropped.
#[allow(unsafe_code)]
unsafe impl Send for Map {}

// SAFETY: as above: all that it gives out is shared and read only.
#[allow(unsafe_code)]
unsafe impl Sync for Map {}

impl Map {
    #[allow(unsafe_code)]
    fn of(file: &File, length: usize, _whole: DirectGuard) -> io::Result<Self> {
        // SAFETY: the kernel chooses a place where nothing is.
        let at =
            unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        let at = NonNull::new(at).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at, length, _whole })
    }
}

impl AsRef<[u8]> for Map {
    #[allow(unsafe_code)]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped until it is dropped. Content files belong to this store alone, are never
        // cut short, and what was proven is only ever written again as the same bytes.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr().cast(), self.length) }
    }
}

impl Drop for Map {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nobody has it any more.
        let gone = unsafe { munmap(self.at.as_ptr(), self.length) };
        debug_assert!(gone.is_ok(), "what was mapped can be taken away");
    }
}
