//! The wire contracts and their Rust types, and the conversions between them and the nouns.
//!
//! Everything received is checked here, once, at the boundary: [`convert`] turns a message into a
//! type of `dfs-model` or says which field is wrong.

pub mod convert;
mod redacted;

pub use generated::common::v1 as common;
pub use generated::containerd::services::snapshots::v1 as snapshots;
pub use generated::cri::v1 as cri;
pub use generated::manager::v1 as manager;
pub use generated::node::v1 as node;
pub use generated::scheduler::v1 as scheduler;
pub use generated::seed::v1 as seed;

/// Nested as the packages are, because generated code names its neighbours by relative path.
#[allow(missing_docs, clippy::all, clippy::too_many_lines)]
mod generated {
    pub mod common {
        pub mod v1 {
            tonic::include_proto!("dfs.common.v1");
        }
    }
    pub mod manager {
        pub mod v1 {
            tonic::include_proto!("dfs.manager.v1");
        }
    }
    pub mod scheduler {
        pub mod v1 {
            tonic::include_proto!("dfs.scheduler.v1");
        }
    }
    pub mod seed {
        pub mod v1 {
            tonic::include_proto!("dfs.seed.v1");
        }
    }
    pub mod node {
        pub mod v1 {
            tonic::include_proto!("dfs.node.v1");
        }
    }
    pub mod cri {
        pub mod v1 {
            tonic::include_proto!("runtime.v1");
        }
    }
    pub mod containerd {
        pub mod services {
            pub mod snapshots {
                pub mod v1 {
                    tonic::include_proto!("containerd.services.snapshots.v1");
                }
            }
        }
    }
}
