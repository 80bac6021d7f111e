//! What hands out memory.
//!
//! In the static programs musl's own allocator maps every large buffer anew and gives it back at once, which costs
//! `dfctl get` half as much processor time again; mimalloc keeps them. Without `no_thp` it would hold a third more,
//! in huge pages of which little is used.

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is as long lies outside of the heap, as the buffers do by which a mount takes requests: of those little is
/// touched, and it goes back to the system when it is freed.
#[cfg(target_env = "gnu")]
const APART: i32 = 8 << 20;

/// Lets all threads share one heap, where each would keep what it freed for itself: for a process of few threads that
/// hand large buffers on to each other. To be called while there is one thread.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: each sets a number of the allocator, which is asked for when a thread first allocates.
    #[allow(unsafe_code)]
    unsafe {
        // What is not taken leaves the heaps as they were.
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // It would grow with what is freed, and the largest buffers come to lie in the heap, which never gets smaller.
        libc::mallopt(libc::M_MMAP_THRESHOLD, APART);
        // At the end of the heap as much is kept for the next one.
        libc::mallopt(libc::M_TRIM_THRESHOLD, APART);
    }
}

/// Gives the system what is free: glibc keeps for itself what lies between small things that are still in use.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only looks through what is free.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}
