//! The status of every answer below `/api`, in one place. Whatever refuses there (a layer, the server function's own
//! decoding, an action), the browser gets an [`ApiError`] as JSON under a fitting status.

use app::error::ApiError;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// Marks an answer as a server function's error.
const SERVER_FN_ERROR: HeaderName = HeaderName::from_static("serverfnerror");
/// Far above any error that we make.
const MAX_ERROR_BYTES: usize = 256 * 1024;

/// An [`ApiError`] as an answer.
#[derive(Debug)]
pub struct ApiFailure(pub ApiError);

impl<E: Into<ApiError>> From<E> for ApiFailure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let mut response = (status(&error), axum::Json(&error)).into_response();
        let headers = response.headers_mut();
        headers.insert(SERVER_FN_ERROR, HeaderValue::from_static("ringfence"));
        if let ApiError::TooMany { retry_after_seconds } = error {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
        }
        response
    }
}

fn status(error: &ApiError) -> StatusCode {
    match error {
        ApiError::SignedOut | ApiError::SecondFactorNeeded => StatusCode::UNAUTHORIZED,
        ApiError::Forbidden | ApiError::StepUpNeeded => StatusCode::FORBIDDEN,
        ApiError::NotFound | ApiError::NewVersion => StatusCode::NOT_FOUND,
        ApiError::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        ApiError::NeedsInsisting { .. } | ApiError::Refused { .. } => StatusCode::CONFLICT,
        ApiError::Malformed => StatusCode::BAD_REQUEST,
        ApiError::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        ApiError::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
        ApiError::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Middleware of `/api`.
pub async fn map(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if !(response.status().is_client_error() || response.status().is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let Ok(error) = serde_json::from_slice::<ApiError>(&bytes) else {
        let mut answer = ApiFailure(of_status(parts.status)).into_response();
        *answer.status_mut() = parts.status;
        return answer;
    };
    let mut answer = ApiFailure(error).into_response();
    // What the layers inside have set, cookies above all, stays.
    for (name, value) in &parts.headers {
        if name == header::SET_COOKIE {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    *answer.extensions_mut() = parts.extensions;
    answer
}

/// The error of an answer that is not ours, such as a library's.
fn of_status(status: StatusCode) -> ApiError {
    match status {
        StatusCode::FORBIDDEN => ApiError::Forbidden,
        StatusCode::NOT_FOUND => ApiError::NewVersion,
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::Refused { message: "This is too large: at most 2 MB can be sent at once.".to_owned() }
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            ApiError::Refused { message: "The server took too long. Try again in a moment.".to_owned() }
        }
        status if status.is_client_error() => ApiError::Malformed,
        _ => actions::ActError::internal(format!("an answer of {status} without an error")).into(),
    }
}

/// What an unknown path below `/api` answers: this page is older than the server.
pub async fn unknown() -> ApiFailure {
    ApiFailure(ApiError::NewVersion)
}

/// Answers with the bare error, for layers that refuse before a handler is reached.
pub fn refuse(error: ApiError) -> Response<Body> {
    ApiFailure(error).into_response()
}
