//! Signing up, logging in, the second factor and password reset: one centred card, one task per step.

#[expect(missing_docs, reason = "the arguments of a server function become the fields of a type that nobody names")]
pub mod api;
pub(crate) mod invitation;
pub(crate) mod login;
pub(crate) mod reset;
pub(crate) mod setup;
pub(crate) mod sign_up;
pub(crate) mod steps;
