//! The overview.

pub mod api;
pub(crate) mod page;
