//! (dfctl)
