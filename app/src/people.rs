//! Who has access: people and their roles, invitations.

#[expect(missing_docs, reason = "the arguments of a server function become the fields of a type that nobody names")]
pub mod api;
mod forms;
mod invitations;
pub(crate) mod page;
mod roles;
mod row;
