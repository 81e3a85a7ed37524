//! Reading a part of a signal without copying all of it. The `with` of Leptos makes its code anew for every closure;
//! these read through a guard, whose code exists once per type, which makes the browser's program smaller.

use std::ops::Deref;

use leptos::prelude::*;

/// Reads a part of a value.
pub(crate) trait Look: Read {
    /// The part, followed: whoever reads it runs again when the whole changes.
    fn look<R>(&self, part: impl FnOnce(&<Self::Value as Deref>::Target) -> R) -> R {
        part(&self.read())
    }
}

impl<S: Read> Look for S {}

/// Reads a part of a value without following it.
pub(crate) trait Peek: ReadUntracked {
    /// The part as it is.
    fn peek<R>(&self, part: impl FnOnce(&<Self::Value as Deref>::Target) -> R) -> R {
        part(&self.read_untracked())
    }
}

impl<S: ReadUntracked> Peek for S {}

/// Reads a part of a stored value.
pub(crate) trait PeekStored: ReadValue {
    /// The part as it is.
    fn peek_stored<R>(&self, part: impl FnOnce(&<Self::Value as Deref>::Target) -> R) -> R {
        part(&self.read_value())
    }
}

impl<S: ReadValue> PeekStored for S {}
