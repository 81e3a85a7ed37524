//! The audit log: who did what, when, from where; and whether the chain is intact.

#[expect(missing_docs, reason = "the arguments of a server function become the fields of a type that nobody names")]
pub mod api;
pub(crate) mod page;
pub(crate) mod panel;
pub(crate) mod words;
