//! The entry of the browser's program: takes over the page that the server rendered.

// Views are types within types: a page of some depth passes the default.
#![recursion_limit = "512"]

use std::time::Duration;

use wasm_bindgen::prelude::wasm_bindgen;

/// Called once by the page. Afterwards `html[data-hydrated]` is set; should the program ever fail, `html[data-crashed]`
/// is, and the page shows how to go on.
#[wasm_bindgen]
pub fn hydrate() {
    std::panic::set_hook(Box::new(|panic| {
        leptos::logging::error!("{panic}");
        mark("data-crashed");
    }));
    wasm_bindgen_futures::spawn_local(async {
        let path = leptos::prelude::window().location().pathname().unwrap_or_default();
        if app::fetch_page(&path).await.is_err() {
            mark("data-crashed");
            return;
        }
        leptos::mount::hydrate_body(app::App);
        mark("data-hydrated");
        // Not before the page has shown and asked for what it needs.
        let rest = || wasm_bindgen_futures::spawn_local(app::fetch_rest());
        leptos::prelude::set_timeout(rest, Duration::from_secs(1));
    });
}

fn mark(attribute: &str) {
    if let Some(root) = leptos::prelude::document().document_element() {
        // Only a malformed name is refused.
        let _ = root.set_attribute(attribute, "");
    }
}
