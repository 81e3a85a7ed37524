//! What tests of several crates stand on: machines in network namespaces, and real packets between them. For tests only: whatever can't be
//! made fails the test that wants it.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails that way")]

pub mod namespaces;
pub mod traffic;
