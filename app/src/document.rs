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
use crate::routes::piece_of;

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
    // The program fetches what else it needs itself, once the page works.
    let first = piece_of(&path).and_then(|piece| Some((piece, files.first.get(piece)?.clone())));
    let (first, wasm) = match first {
        Some((piece, wasm)) => (Some(piece), wasm),
        None => (None, files.wasm.clone()),
    };
    let start =
        format!("import({js:?}).then(m=>m.default({{module_or_path:{wasm:?}}}).then(()=>m.hydrate()))", js = files.js);
    view! {
        <!DOCTYPE html>
        <html lang="en" data-first=first>
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
                <link rel="preload" href=wasm r#as="fetch" r#type="application/wasm" crossorigin="anonymous" />
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
    /// The program's beginning joined with a piece, for each piece; nothing where the build made no such files.
    first: BTreeMap<String, String>,
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
        let built = std::fs::read_dir(Path::new(&*options.site_root).join(folder)).into_iter().flatten().flatten();
        let first = built.filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            Some((first_of(&file)?.to_owned(), format!("/{folder}/{file}")))
        });
        Self {
            css: file("css"),
            js: file("js"),
            wasm: file("wasm"),
            split: hash("split").map(|hash| format!("/{folder}/__wasm_split{hash}.js")),
            first: first.collect(),
        }
    }
}

/// The piece that a file of the build joins with the program's beginning: `first_PIECE.HASH.wasm`.
fn first_of(file: &str) -> Option<&str> {
    let (piece, rest) = file.strip_prefix("first_")?.split_once('.')?;
    let (_, kind) = rest.split_once('.')?;
    (kind == "wasm").then_some(piece)
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
    fn the_first_files_name_their_piece() {
        assert_eq!(first_of("first_blocked_ips.a-b_c.wasm"), Some("blocked_ips"));
        for other in ["first_audit.abc.wasm.br", "split_audit.abc.wasm", "ringfence.abc.wasm", "first_audit"] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }

    #[test]
    fn every_page_is_in_a_piece_with_and_without_a_slash_at_its_end() {
        for route in leptos_axum::generate_route_list(App) {
            let piece = piece_of(route.path());
            assert!(piece.is_some(), "{} would be dead in the browser", route.path());
            assert_eq!(piece_of(&format!("{}/", route.path())), piece);
        }
        assert_eq!(piece_of("/elsewhere"), None);
    }
}
