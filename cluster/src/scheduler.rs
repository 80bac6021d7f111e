//! Who may be whose parent: a pure [`core`] and the gRPC shell around it.

pub mod core;
