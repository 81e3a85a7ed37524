//! Why something was not done.

use policy::fields::FieldError;
use store::StoreError;

/// Why something was not done. Everything but `Internal` is for the caller's eyes.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// Nobody is logged in.
    #[error("nobody is logged in")]
    SignedOut,
    /// The second factor is missing.
    #[error("the second factor is missing")]
    SecondFactorNeeded,
    /// The second factor was shown too long ago for this.
    #[error("a fresh second factor is needed")]
    StepUpNeeded,
    /// The role doesn't allow it.
    #[error("the role doesn't allow it")]
    Forbidden,
    /// Not there, or not the caller's.
    #[error("not there")]
    NotFound,
    /// Fields of the form are wrong.
    #[error("wrong fields: {}", .0.iter().map(|field| field.message.as_str()).collect::<Vec<_>>().join(" "))]
    Invalid(Vec<FieldError>),
    /// Advised against; done when the caller insists.
    #[error("{0}")]
    NeedsInsisting(String),
    /// It can't be done as things are.
    #[error("{0}")]
    Refused(String),
    /// Too many tries.
    #[error("too many tries")]
    TooMany {
        /// When to try again.
        retry_after_seconds: u64,
    },
    /// A defect or an outage.
    #[error("internal error {error_id}")]
    Internal {
        /// What happened; for the log only.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// The id under which it is logged and shown.
        error_id: String,
    },
}

impl ActError {
    /// One wrong field.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }

    /// A defect or an outage.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let error_id = uuid::Uuid::new_v4().simple().to_string().chars().take(12).collect();
        Self::Internal { source: source.into(), error_id }
    }
}

/// An error with its causes, for the log.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Constraints whose breach a form can explain; the rest are defects.
impl From<StoreError> for ActError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { constraint } => match constraint.as_str() {
                "pbxes_name_key" => Self::field("name", "A PBX of this name exists. Choose another name."),
                "allowed_ips_net_key" | "allowed_ips_domain_key" => {
                    Self::field("target", "This is in the list already.")
                }
                "tenants_slug_key" | "slugs_pkey" => {
                    Self::field("slug", "This short name is taken. Choose another one.")
                }
                _ => Self::internal(StoreError::Conflict { constraint }),
            },
            error @ (StoreError::UnsafeRole(_) | StoreError::Migrate(_) | StoreError::Database(_)) => {
                Self::internal(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_down_to_the_last_cause() {
        let cause = sqlx::Error::Io(std::io::Error::other("connection refused"));
        let error = ActError::internal(StoreError::Database(cause));
        let ActError::Internal { error_id, .. } = &error else { panic!("{error:?}") };
        let text = chain(&error);
        assert!(text.starts_with(&format!("internal error {error_id}: the database: ")), "{text}");
        assert!(text.ends_with("connection refused"), "{text}");
    }
}
