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
use crate::routes::Pieces;

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
    let Pieces { now, soon } = Pieces::of(&path);
    let now = files.of_pieces(now);
    let mut soon = files.of_pieces(soon);
    soon.retain(|file| !now.contains(file));
    let fetched = |rel: &'static str| move |file: String| view! { <link rel=rel href=file r#as="fetch" r#type="application/wasm" crossorigin="anonymous" /> };
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
                {fetched("preload")(files.wasm.clone())}
                {now.into_iter().map(fetched("preload")).collect_view()}
                {soon.into_iter().map(fetched("prefetch")).collect_view()}
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
    /// What fetches the pieces of the program.
    split: Option<String>,
    /// The files of each piece, by its name.
    pieces: BTreeMap<String, Vec<String>>,
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
            pieces: std::fs::read(manifest).map(|manifest| read_pieces(&manifest, folder)).unwrap_or_default(),
        }
    }

    /// What these pieces consist of; some share files.
    fn of_pieces(&self, pieces: &[&str]) -> Vec<String> {
        let mut files: Vec<String> =
            pieces.iter().filter_map(|piece| self.pieces.get(*piece)).flatten().cloned().collect();
        files.sort();
        files.dedup();
        files
    }
}

/// The files of each piece from the manifest that the build writes: `{"name_1098…": ["chunk_4.hash", …], …}`.
fn read_pieces(manifest: &[u8], folder: &str) -> BTreeMap<String, Vec<String>> {
    let manifest: BTreeMap<String, Vec<String>> = serde_json::from_slice(manifest).unwrap_or_default();
    let address = |file: String| format!("/{folder}/{file}.wasm");
    let piece = |(name, files): (String, Vec<String>)| {
        let name = name.rsplit_once('_').map_or(name.as_str(), |(name, _)| name).to_owned();
        (name, files.into_iter().map(address).collect())
    };
    manifest.into_iter().map(piece).collect()
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
    fn a_page_has_the_files_of_its_pieces_fetched_once() {
        let manifest =
            br#"{"console_10":["chunk_4.a","split_console_10.b"],"lists_10":["chunk_4.a","split_lists_10.c"]}"#;
        let files = Files {
            css: String::new(),
            js: String::new(),
            wasm: String::new(),
            split: None,
            pieces: read_pieces(manifest, "pkg"),
        };
        assert_eq!(files.of_pieces(Pieces::of("/").now), ["/pkg/chunk_4.a.wasm", "/pkg/split_console_10.b.wasm"]);
        assert_eq!(files.of_pieces(Pieces::of("/audit").now).len(), 3);
        assert!(files.of_pieces(Pieces::of("/nothing").now).is_empty());
    }

    #[test]
    fn every_page_is_in_a_piece_with_and_without_a_slash_at_its_end() {
        let routes = leptos_axum::generate_route_list(App);
        assert!(routes.len() > 10, "{}", routes.len());
        for route in routes {
            let path = route.path();
            assert!(!Pieces::of(path).now.is_empty(), "{path}: a page that is in no piece is dead in the browser");
            assert_eq!(Pieces::of(&format!("{path}/")).now, Pieces::of(path).now);
        }
    }
}
