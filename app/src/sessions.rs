//! Where people are logged in: one's own sessions, and everybody's in the organisation.

#[expect(missing_docs, reason = "the arguments of a server function become the fields of a type that nobody names")]
pub mod api;
pub(crate) mod page;
