//! What a form says back: one error per field, in words for an administrator, and warnings that need a "yes, I mean it".

use serde::{Deserialize, Serialize};

/// What is wrong with one field of a form: what is wrong, what is allowed, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The field's name in the draft, such as `target`.
    pub field: String,
    /// The sentence shown next to the field.
    pub message: String,
}

impl FieldError {
    /// An error of `field`.
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into() }
    }
}

/// Trims a free text and checks it: at most `max_chars` characters, no control characters.
///
/// # Errors
/// The sentence to show.
pub fn plain_text(text: &str, max_chars: usize) -> Result<String, String> {
    let text = text.trim();
    let length = text.chars().count();
    if length > max_chars {
        return Err(format!("This has {length} characters; at most {max_chars} fit. Shorten it."));
    }
    if text.chars().any(char::is_control) {
        return Err("Line breaks and control characters can't be kept here. Write it on one line.".to_owned());
    }
    Ok(text.to_owned())
}
