//! What a page loads before it is shown: on the server while rendering, in the browser when one goes there.

use std::future::Future;

use leptos::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::json::JsonEncoding;

/// Data that a page came with.
pub(crate) type Loaded<T> = Resource<T, JsonEncoding>;

/// Loads `T`, again whenever `source` changes. For the set-up of a page or of the frame, never inside of what waits.
pub(crate) fn load<T, S, F>(
    source: impl Fn() -> S + Send + Sync + 'static,
    call: impl Fn(S) -> F + Send + Sync + 'static,
) -> Loaded<T>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
    S: PartialEq + Clone + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
{
    Resource::new_with_options(source, call, false)
}
