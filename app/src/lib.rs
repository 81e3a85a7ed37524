//! The portal's pages. Compiled twice: for the server, which renders them (`ssr`), and for the browser, which brings
//! them to life (`hydrate`). Pages call server functions; each server function calls one action and nothing else.
//!
//! Layout: one folder per feature with its `api` and its pages; [`ui`] is the design system; [`frame`] is what surrounds
//! every page of a signed-in person; [`calls`] is how pages call the server; [`live`] is how they learn of changes.

// Views are types within types: a page of some depth passes the default.
#![recursion_limit = "512"]

pub mod account;
pub mod allowed_ips;
pub mod audit;
pub mod blocked_ips;
mod browser;
mod calls;
mod clock;
#[cfg(feature = "ssr")]
pub mod context;
#[cfg(feature = "ssr")]
mod document;
pub mod enforcement;
pub mod error;
mod frame;
mod go;
pub mod json;
mod live;
mod load;
mod look;
pub mod overview;
pub mod pbxes;
pub mod people;
mod routes;
pub mod sessions;
mod ui;

#[cfg(feature = "ssr")]
pub use document::shell;
pub use routes::App;
#[cfg(feature = "hydrate")]
pub use routes::{fetch_page, fetch_rest};
