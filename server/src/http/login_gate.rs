//! Before a page is rendered: who may not see it yet is led to the step of the login that is missing. (A redirect inside of
//! a page would still send the whole page along.)

use actions::Login;
use app::context;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::Uri;
use policy::account::Stage;
use tower_sessions::Session;

use super::api_errors::ApiFailure;

/// Pages for people who are not signed in, by their path.
const OPEN: [&str; 6] = ["/sign-up", "/verify", "/login", "/forgot", "/reset", "/invitation"];

/// Middleware of pages.
pub async fn guard(request: Request, next: Next) -> Response {
    let login = match request.extensions().get::<Session>() {
        Some(session) => match context::login_of(session).await {
            Ok(login) => login,
            Err(error) => return ApiFailure(error).into_response(),
        },
        None => None,
    };
    // Who is only invited to a tenant is in none: nothing but her invitation is open to her.
    let stage = match &login {
        Some(Login { stage: Stage::SignedIn, tenant_id: None, .. }) | None => Stage::SignedOut,
        Some(Login { stage, .. }) => *stage,
    };
    match leads_to(stage, request.uri()) {
        Some(place) => Redirect::to(&place).into_response(),
        None => next.run(request).await,
    }
}

/// Where somebody at this stage of the login is led instead of where she wants to go.
fn leads_to(stage: Stage, wanted: &Uri) -> Option<String> {
    let path = wanted.path();
    let step = match stage {
        Stage::SignedOut => "/login",
        Stage::NeedsCode => "/login/code",
        Stage::NeedsTotpSetup => "/setup",
        Stage::SignedIn => "/",
    };
    // Names with a dot are files, such as the icon.
    let file = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
    if path == step || file {
        return None;
    }
    match path {
        // Steps of the login, each at its own stage only.
        "/login/code" | "/setup" => Some(step.to_owned()),
        "/login" if stage == Stage::SignedIn => Some(step.to_owned()),
        _ if OPEN.contains(&path) || stage == Stage::SignedIn => None,
        "/" => Some(step.to_owned()),
        _ => {
            let wanted = wanted.path_and_query().map_or(path, |wanted| wanted.as_str());
            let next: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
            Some(format!("{step}?next={next}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(stage: Stage, wanted: &str) -> Option<String> {
        leads_to(stage, &wanted.parse().unwrap())
    }

    #[test]
    fn who_is_signed_out_logs_in_first() {
        assert_eq!(lead(Stage::SignedOut, "/"), Some("/login".to_owned()));
        assert_eq!(
            lead(Stage::SignedOut, "/blocked-ips?ban=1&x=2"),
            Some("/login?next=%2Fblocked-ips%3Fban%3D1%26x%3D2".to_owned())
        );
        assert_eq!(lead(Stage::SignedOut, "/setup"), Some("/login".to_owned()));
        for open in [
            "/favicon.svg",
            "/login",
            "/sign-up",
            "/verify?token=x",
            "/forgot",
            "/reset?token=x",
            "/invitation?token=x",
        ] {
            assert_eq!(lead(Stage::SignedOut, open), None, "{open}");
        }
    }

    #[test]
    fn a_login_in_progress_is_completed_first() {
        assert_eq!(lead(Stage::NeedsCode, "/pbxes"), Some("/login/code?next=%2Fpbxes".to_owned()));
        assert_eq!(lead(Stage::NeedsCode, "/login/code"), None);
        assert_eq!(lead(Stage::NeedsCode, "/login"), None, "somebody else may log in");
        assert_eq!(lead(Stage::NeedsTotpSetup, "/login/code"), Some("/setup".to_owned()));
        assert_eq!(lead(Stage::NeedsTotpSetup, "/"), Some("/setup".to_owned()));
    }

    #[test]
    fn who_is_signed_in_goes_where_she_wants() {
        assert_eq!(lead(Stage::SignedIn, "/pbxes"), None);
        assert_eq!(lead(Stage::SignedIn, "/login"), Some("/".to_owned()));
        assert_eq!(lead(Stage::SignedIn, "/setup"), Some("/".to_owned()));
        assert_eq!(lead(Stage::SignedIn, "/verify?token=x"), None);
    }
}
