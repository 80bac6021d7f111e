//! Where answers are put together before the kernel takes them.
//!
//! The kernel looks up each page of what it copies, and copies page by page into its own: of bytes that do not begin on
//! a page it looks up two, and copies twice, for each of these.

use std::cell::RefCell;

use crate::core::MAX_READ;

/// The smallest page there is; larger ones are as well off.
const PAGE: usize = 4096;

/// Room for one answer.
struct Buffer {
    bytes: Vec<u8>,
    /// Where a page begins.
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let bytes = vec![0; MAX_READ + PAGE];
        let start = bytes.as_ptr().addr().next_multiple_of(PAGE) - bytes.as_ptr().addr();
        Self { bytes, start }
    }
}

thread_local! {
    static BUFFER: RefCell<Buffer> = RefCell::new(Buffer::new());
}

/// Hands over `length` bytes of this thread's room, at most [`MAX_READ`], which hold what an earlier answer left.
pub(super) fn with_buffer<T>(length: usize, fill: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|Buffer { bytes, start }| fill(&mut bytes[*start..][..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_answer_has_room_from_a_page_on() {
        for length in [0, 1, PAGE, MAX_READ] {
            with_buffer(length, |buffer| {
                assert_eq!(buffer.len(), length);
                assert!(buffer.as_ptr().addr().is_multiple_of(PAGE));
            });
        }
    }
}
