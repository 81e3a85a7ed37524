//! Blocked IPs: the list, one ban with its evidence, blocking and unblocking.

#[expect(missing_docs, reason = "the arguments of a server function become the fields of a type that nobody names")]
pub mod api;
pub(crate) mod form;
pub(crate) mod page;
pub(crate) mod panel;
pub(crate) mod row;
pub(crate) mod unblock;
