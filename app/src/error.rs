//! What a server function answers when it did not do what was asked: a code the pages act on, and words for people.

use leptos::prelude::*;
use leptos::server_fn::codec::JsonEncoding;
use policy::fields::FieldError;
use serde::{Deserialize, Serialize};

/// The only error that leaves the server. Holds nothing internal: details are in the server's log under the error id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ApiError {
    /// Nobody is logged in, or the session ended.
    #[error("Your session has ended. Log in again.")]
    SignedOut,
    /// The second factor is missing.
    #[error("Complete the login first.")]
    SecondFactorNeeded,
    /// The role doesn't allow it.
    #[error("Your role doesn't allow this. Ask a Super administrator.")]
    Forbidden,
    /// Not there, or not the caller's.
    #[error("This isn't there any more. Reload the list.")]
    NotFound,
    /// Fields of the form are wrong; nothing was changed.
    #[error("{}", .fields.first().map_or("Check the form.", |field| field.message.as_str()))]
    Invalid {
        /// One error per field.
        fields: Vec<FieldError>,
    },
    /// The server advises against it; the same call with `insist` does it.
    #[error("{message}")]
    NeedsInsisting {
        /// What would happen.
        message: String,
    },
    /// It can't be done as things are; nothing was changed.
    #[error("{message}")]
    Refused {
        /// Why, and what to do.
        message: String,
    },
    /// Too many tries.
    #[error("Too many tries. Try again in {retry_after_seconds} s.")]
    TooMany {
        /// When to try again.
        retry_after_seconds: u64,
    },
    /// A defect or an outage on our side.
    #[error(
        "Something failed on our side (error {error_id}). Nothing was changed. Try again; if it stays, tell your operator this number."
    )]
    Internal {
        /// The id in the server's log.
        error_id: String,
    },
    /// The request could not be read.
    #[error("The request could not be read. Reload the page and try again.")]
    Malformed,
    /// The request did not reach the server, or its answer could not be read.
    #[error("The server can't be reached. Check your connection and try again.")]
    Unreachable,
    /// The server runs a newer version than this page.
    #[error("Ringfence was updated. Reload the page.")]
    NewVersion,
}

impl ApiError {
    /// The message for one field, if it is wrong.
    pub fn field(&self, name: &str) -> Option<String> {
        let Self::Invalid { fields } = self else { return None };
        fields.iter().find(|field| field.field == name).map(|field| field.message.clone())
    }
}

/// Code of a page that could not be fetched.
impl From<leptos::wasm_split::SplitLoaderError> for ApiError {
    fn from(_: leptos::wasm_split::SplitLoaderError) -> Self {
        Self::Unreachable
    }
}

impl FromServerFnError for ApiError {
    type Encoder = JsonEncoding;

    fn from_server_fn_error(error: ServerFnErrorErr) -> Self {
        match error {
            ServerFnErrorErr::Args(message) | ServerFnErrorErr::Deserialization(message)
                if message.contains("Could not find a server function") =>
            {
                Self::NewVersion
            }
            // On the server it is the request that can't be read, in the browser the answer.
            ServerFnErrorErr::Args(_) | ServerFnErrorErr::MissingArg(_) | ServerFnErrorErr::Deserialization(_)
                if cfg!(feature = "ssr") =>
            {
                Self::Malformed
            }
            ServerFnErrorErr::Request(_)
            | ServerFnErrorErr::Response(_)
            | ServerFnErrorErr::Args(_)
            | ServerFnErrorErr::MissingArg(_)
            | ServerFnErrorErr::Deserialization(_)
            | ServerFnErrorErr::Serialization(_)
            | ServerFnErrorErr::Registration(_)
            | ServerFnErrorErr::UnsupportedRequestMethod(_)
            | ServerFnErrorErr::ServerError(_)
            | ServerFnErrorErr::MiddlewareError(_) => Self::Unreachable,
        }
    }
}
