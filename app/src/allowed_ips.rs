//! Allowed IPs: the list, adding and editing, CSV in and out.

#[expect(missing_docs, reason = "the arguments of a server function become the fields of a type that nobody names")]
pub mod api;
pub(crate) mod form;
pub(crate) mod import;
pub(crate) mod page;
pub(crate) mod row;
