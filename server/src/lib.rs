//! The portal server: http for people, gRPC for agents, jobs, configuration, break-glass commands.
//! Translates; what is decided is in `policy`, what is done in `actions`.

// The types of rendered pages nest deeply.
#![recursion_limit = "512"]

mod address;
pub mod commands;
pub mod config;
pub mod connections;
pub mod counted;
pub mod descriptors;
pub mod http;
pub mod installation;
pub mod jobs;
pub mod observe;
pub mod private_postgres;
pub mod rpc;
pub mod sessions;
pub mod wakeups;
