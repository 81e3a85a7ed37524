//! The HTML document around the app, as the server sends it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use axum::http::request::Parts;
use leptos::config::LeptosOptions;
use leptos::nonce::use_nonce;
use leptos::prelude::*;
use leptos_meta::MetaTags;

use crate::App;
use crate::routes::is_list;

/// Applies what the browser keeps (theme, folded navigation) before anything is painted.
const BEFORE_PAINT: &str = "try{const e=document.documentElement,t=localStorage.getItem('ringfence-theme'),\
f=localStorage.getItem('ringfence-nav-folded');if(t)e.dataset.theme=t;if(f)e.dataset.navFolded=f}catch{}";

/// The document. Has its own hydration script since the one of Leptos 0.8 writes the nonce into `crossorigin`, which
/// makes Firefox drop the preload of the program (leptos#4843).
#[must_use]
pub fn shell(options: LeptosOptions) -> impl IntoView {
    static FILES: OnceLock<Files> = OnceLock::new();
    let files = FILES.get_or_init(|| Files::find(&options));
    let nonce = use_nonce();
    let path = use_context::<Parts>().map(|parts| parts.uri.path().to_owned()).unwrap_or_default();
    // Elsewhere the program fetches the lists itself, once the page works.
    let lists = if is_list(&path) { files.lists.clone() } else { Vec::new() };
    let preload = |file: String| view! { <link rel="preload" href=file r#as="fetch" r#type="application/wasm" crossorigin="anonymous" /> };
    let start = format!(
        "import({js:?}).then(m=>m.default({{module_or_path:{wasm:?}}}).then(()=>m.hydrate()))",
        js = files.js,
        wasm = files.wasm
    );
    view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <meta charset="utf-8" />
                <meta name="viewport" content="width=device-width, initial-scale=1" />
                <meta name="color-scheme" content="light dark" />
                <meta name="robots" content="noindex" />
                <script nonce=nonce.clone()>{BEFORE_PAINT}</script>
                <link rel="stylesheet" href=files.css.clone() />
                <link rel="icon" type="image/svg+xml" href="/favicon.svg" />
                <link rel="modulepreload" href=files.js.clone() nonce=nonce.clone() />
                {files.split.clone().map(|split| view! { <link rel="modulepreload" href=split nonce=nonce.clone() /> })}
                {preload(files.wasm.clone())}
                {lists.into_iter().map(preload).collect_view()}
                <script type="module" nonce=nonce>{start}</script>
                <AutoReload options=options />
                <MetaTags />
            </head>
            <body>
                <App />
                <div class="crash" role="alert">
                    <p>"This page stopped working. What you had saved is safe."</p>
                    <a class="button" href="" rel="external">"Reload"</a>
                </div>
                <noscript>"Ringfence needs JavaScript and WebAssembly."</noscript>
            </body>
        </html>
    }
}

/// The addresses of the style sheet and of the program, with the hashes of their content where the build made them.
#[derive(Debug)]
struct Files {
    css: String,
    js: String,
    wasm: String,
    /// What fetches the rest of the program.
    split: Option<String>,
    /// The rest of the program: the lists.
    lists: Vec<String>,
}

impl Files {
    fn find(options: &LeptosOptions) -> Self {
        let hashes = if options.hash_files { read_hashes(&options.hash_file) } else { String::new() };
        let (folder, name) = (&*options.site_pkg_dir, &*options.output_name);
        let hash = |kind: &str| {
            let found = hashes.lines().filter_map(|line| line.split_once(':')).find(|(of, _)| of.trim() == kind);
            found.map(|(_, hash)| format!(".{}", hash.trim()))
        };
        let file = |kind: &str| format!("/{folder}/{name}{}.{kind}", hash(kind).unwrap_or_default());
        let manifest = format!("__wasm_split_manifest{}.json", hash("manifest").unwrap_or_default());
        let manifest = Path::new(&*options.site_root).join(folder).join(manifest);
        Self {
            css: file("css"),
            js: file("js"),
            wasm: file("wasm"),
            split: hash("split").map(|hash| format!("/{folder}/__wasm_split{hash}.js")),
            lists: std::fs::read(manifest).map(|manifest| read_manifest(&manifest, folder)).unwrap_or_default(),
        }
    }
}

/// The files beside the program's beginning, from the manifest that the build writes: `{"lists": ["split_lists.hash", …]}`.
fn read_manifest(manifest: &[u8], folder: &str) -> Vec<String> {
    let manifest: BTreeMap<String, Vec<String>> = serde_json::from_slice(manifest).unwrap_or_default();
    manifest.into_values().flatten().map(|file| format!("/{folder}/{file}.wasm")).collect()
}

/// The file lies beside the program, as cargo-leptos and the container image put it.
fn read_hashes(file: &str) -> String {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(file)));
    beside.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_lists_are_those_of_the_manifest() {
        let manifest = br#"{"lists":["chunk_4.a","split_lists.b"]}"#;
        assert_eq!(read_manifest(manifest, "pkg"), ["/pkg/chunk_4.a.wasm", "/pkg/split_lists.b.wasm"]);
        assert!(read_manifest(b"", "pkg").is_empty());
    }

    #[test]
    fn every_list_is_a_page_with_and_without_a_slash_at_its_end() {
        let routes = leptos_axum::generate_route_list(App);
        let lists: Vec<_> =
            routes.iter().map(leptos_axum::AxumRouteListing::path).filter(|path| is_list(path)).collect();
        assert_eq!(lists.len(), 4, "{lists:?}");
        assert!(lists.iter().all(|path| is_list(&format!("{path}/"))));
        assert!(!is_list("/login") && !is_list("/") && !is_list(""));
    }
}
