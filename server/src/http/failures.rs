//! What people see when a defect shows: an error id, here and in the log.

use std::any::Any;

use axum::body::Body;
use axum::response::{Html, IntoResponse as _, Response};
use http::StatusCode;

/// The answer to a request whose handler panicked.
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let error_id: String = uuid::Uuid::new_v4().simple().to_string().chars().take(12).collect();
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(error.id = %error_id, panic = said.unwrap_or("without a word"), "a request handler panicked");
    let page = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Ringfence</title></head><body><h1>Something failed on our side</h1>\
         <p>Nothing was changed. <a href=\"\">Try again</a>; if it stays, tell your operator this number: <code>{error_id}</code></p></body></html>"
    );
    (StatusCode::INTERNAL_SERVER_ERROR, Html(page)).into_response()
}
