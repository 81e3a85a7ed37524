//! How far the newest change is enforced, on every page.

pub mod api;
pub(crate) mod pill;
