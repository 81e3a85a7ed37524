//! PBXes: their state, adding and connecting them, renaming, revoking, removing.

pub(crate) mod add;
#[expect(missing_docs, reason = "the arguments of a server function become the fields of a type that nobody names")]
pub mod api;
pub(crate) mod page;
pub(crate) mod row;
pub(crate) mod safety;
