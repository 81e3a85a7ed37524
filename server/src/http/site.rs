//! Pages, rendered by Leptos, and the built files that they load.

use std::path::Path;

use actions::Ctx;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::{HeaderValue, header};
use leptos::prelude::{LeptosOptions, provide_context};
use leptos_axum::LeptosRoutes as _;
use tower_http::services::ServeDir;

use super::headers;

const PACKAGE: &str = "pkg";

/// How Leptos names and finds its files. The build has put hashes into their names when it left `hash.txt` beside the
/// program.
fn options(site: &Path) -> LeptosOptions {
    let hashed = std::env::current_exe().is_ok_and(|program| program.with_file_name("hash.txt").exists());
    LeptosOptions::builder()
        .output_name("ringfence")
        .site_root(site.to_string_lossy().into_owned())
        .site_pkg_dir(PACKAGE)
        .hash_files(hashed)
        .build()
}

/// The pages; what is none of them is the page that says so.
pub fn pages(ctx: &Ctx, site: &Path) -> Router {
    let options = options(site);
    let ctx = ctx.clone();
    let context = move || {
        provide_context(ctx.clone());
        headers::set_page_policy();
    };
    // Server functions have routes of their own.
    let server_functions = super::server_functions().into_iter().map(str::to_owned).collect();
    let (routes, _) = leptos_axum::generate_route_list_with_exclusions_and_ssg(app::App, Some(server_functions));
    let shell = {
        let options = options.clone();
        move || app::shell(options.clone())
    };
    Router::new()
        .leptos_routes_with_context(&options, routes, context.clone(), shell)
        .fallback(leptos_axum::file_and_error_handler_with_context::<LeptosOptions, _>(context, app::shell))
        .with_state(options)
}

/// The built files, compressed at build time where that was done.
pub fn files(site: &Path) -> Router {
    let folder = ServeDir::new(site.join(PACKAGE)).precompressed_br().precompressed_gzip();
    Router::new().nest_service(&format!("/{PACKAGE}"), folder).layer(from_fn(cache))
}

/// A file with a hash in its name never changes; any other is asked for again.
async fn cache(request: Request, next: Next) -> Response {
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    let hashed = name.split('.').count() > 2;
    let mut response = next.run(request).await;
    let value =
        if hashed && response.status().is_success() { "public, max-age=31536000, immutable" } else { "no-cache" };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
    response
}
