//! Whether the standard output was closed when the process began.
//!
//! Before `main` the standard library opens `/dev/null` in place of a closed descriptor, so that no other file gets
//! its number. What is written goes nowhere then, and every write succeeds: it has to be looked at before.

use std::sync::atomic::{AtomicBool, Ordering};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether whoever started this process left it no standard output.
pub fn stdout_was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    let stdout = rustix::stdio::stdout();
    let is_closed = rustix::io::fcntl_getfd(stdout) == Err(rustix::io::Errno::BADF);
    WAS_CLOSED.store(is_closed, Ordering::Relaxed);
}

// The section holds pointers to functions that take nothing they need and return nothing, which are called once, on
// the one thread there is, before the standard library's own start: `look` makes one system call and sets a word.
#[allow(unsafe_code)]
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
