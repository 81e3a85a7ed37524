//! What a server function answers when it did not do what was asked: a code the pages act on, and words for people.

use leptos::prelude::*;
use policy::fields::FieldError;
use serde::{Deserialize, Serialize};

use crate::json::JsonEncoding;

/// The only error that leaves the server. Holds nothing internal: details are in the server's log under the error id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(into = "Told", try_from = "Told")]
pub enum ApiError {
    /// Nobody is logged in, or the session ended.
    #[error("Your session has ended. Log in again.")]
    SignedOut,
    /// The second factor is missing.
    #[error("Complete the login first.")]
    SecondFactorNeeded,
    /// The second factor was shown too long ago; the same call does it once it was shown again.
    #[error("Confirm that it's you first.")]
    StepUpNeeded,
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
    #[error("Too many tries. Try again in {}.", waiting(*.retry_after_seconds))]
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

/// How long to wait, as people say it.
fn waiting(seconds: u64) -> String {
    match seconds {
        0..=120 => format!("{seconds} s"),
        121..=7_200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3_600)),
    }
}

impl ApiError {
    /// The message for one field, if it is wrong.
    pub fn field(&self, name: &str) -> Option<String> {
        let Self::Invalid { fields } = self else { return None };
        fields.iter().find(|field| field.field == name).map(|field| field.message.clone())
    }
}

/// An error as it is sent: its code, and beside it what it holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    code: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldError>,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error_id: String,
}

impl From<ApiError> for Told {
    fn from(error: ApiError) -> Self {
        let code = |code: &str| Self { code: code.to_owned(), ..Self::default() };
        match error {
            ApiError::SignedOut => code("signed_out"),
            ApiError::SecondFactorNeeded => code("second_factor_needed"),
            ApiError::StepUpNeeded => code("step_up_needed"),
            ApiError::Forbidden => code("forbidden"),
            ApiError::NotFound => code("not_found"),
            ApiError::Invalid { fields } => Self { fields, ..code("invalid") },
            ApiError::NeedsInsisting { message } => Self { message, ..code("needs_insisting") },
            ApiError::Refused { message } => Self { message, ..code("refused") },
            ApiError::TooMany { retry_after_seconds } => {
                Self { retry_after_seconds: Some(retry_after_seconds), ..code("too_many") }
            }
            ApiError::Internal { error_id } => Self { error_id, ..code("internal") },
            ApiError::Malformed => code("malformed"),
            ApiError::Unreachable => code("unreachable"),
            ApiError::NewVersion => code("new_version"),
        }
    }
}

impl TryFrom<Told> for ApiError {
    type Error = &'static str;

    fn try_from(told: Told) -> Result<Self, Self::Error> {
        let Told { code, fields, message, retry_after_seconds, error_id } = told;
        Ok(match code.as_str() {
            "signed_out" => Self::SignedOut,
            "second_factor_needed" => Self::SecondFactorNeeded,
            "step_up_needed" => Self::StepUpNeeded,
            "forbidden" => Self::Forbidden,
            "not_found" => Self::NotFound,
            "invalid" => Self::Invalid { fields },
            "needs_insisting" => Self::NeedsInsisting { message },
            "refused" => Self::Refused { message },
            "too_many" => Self::TooMany { retry_after_seconds: retry_after_seconds.unwrap_or_default() },
            "internal" => Self::Internal { error_id },
            "malformed" => Self::Malformed,
            "unreachable" => Self::Unreachable,
            "new_version" => Self::NewVersion,
            _ => return Err("not the code of an error"),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_as_people_say_them() {
        let told = |retry_after_seconds| ApiError::TooMany { retry_after_seconds }.to_string();
        let waits = [(61, "61 s"), (121, "3 min"), (86_400, "24 h")];
        assert!(
            waits.iter().all(|(seconds, words)| told(*seconds) == format!("Too many tries. Try again in {words}."))
        );
    }

    #[test]
    fn errors_are_sent_with_their_code_and_come_back() {
        let all = [
            (ApiError::SignedOut, r#"{"code":"signed_out"}"#),
            (ApiError::SecondFactorNeeded, r#"{"code":"second_factor_needed"}"#),
            (ApiError::StepUpNeeded, r#"{"code":"step_up_needed"}"#),
            (ApiError::Forbidden, r#"{"code":"forbidden"}"#),
            (ApiError::NotFound, r#"{"code":"not_found"}"#),
            (
                ApiError::Invalid { fields: vec![FieldError::new("net", "Enter an address.")] },
                r#"{"code":"invalid","fields":[{"field":"net","message":"Enter an address."}]}"#,
            ),
            (
                ApiError::NeedsInsisting { message: "Wide.".to_owned() },
                r#"{"code":"needs_insisting","message":"Wide."}"#,
            ),
            (ApiError::Refused { message: "No.".to_owned() }, r#"{"code":"refused","message":"No."}"#),
            (ApiError::TooMany { retry_after_seconds: 0 }, r#"{"code":"too_many","retry_after_seconds":0}"#),
            (ApiError::Internal { error_id: "ab12".to_owned() }, r#"{"code":"internal","error_id":"ab12"}"#),
            (ApiError::Malformed, r#"{"code":"malformed"}"#),
            (ApiError::Unreachable, r#"{"code":"unreachable"}"#),
            (ApiError::NewVersion, r#"{"code":"new_version"}"#),
        ];
        for (error, json) in all {
            assert_eq!(serde_json::to_string(&error).unwrap(), json);
            assert_eq!(serde_json::from_str::<ApiError>(json).unwrap(), error);
        }
        for none in ["{}", r#"{"code":"other"}"#, "null"] {
            assert!(serde_json::from_str::<ApiError>(none).is_err());
        }
    }
}
