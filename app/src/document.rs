//! The HTML document around the app, as the server sends it.

use std::path::Path;
use std::sync::OnceLock;

use leptos::config::LeptosOptions;
use leptos::nonce::use_nonce;
use leptos::prelude::*;
use leptos_meta::MetaTags;

use crate::App;

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
                <link rel="preload" href=files.wasm.clone() r#as="fetch" r#type="application/wasm" crossorigin="anonymous" />
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
}

impl Files {
    fn find(options: &LeptosOptions) -> Self {
        let hashes = if options.hash_files { read_hashes(&options.hash_file) } else { String::new() };
        let (folder, name) = (&options.site_pkg_dir, &options.output_name);
        let file = |kind: &str, plain: &str| {
            let hash = hashes.lines().filter_map(|line| line.split_once(':')).find(|(of, _)| of.trim() == kind);
            match hash {
                Some((_, hash)) => format!("/{folder}/{name}.{}.{kind}", hash.trim()),
                None => format!("/{folder}/{plain}.{kind}"),
            }
        };
        // wasm-bindgen alone adds `_bg`, cargo-leptos takes it away.
        let alone = format!("{name}_bg");
        let built_alone = Path::new(&*options.site_root).join(&**folder).join(format!("{alone}.wasm")).exists();
        Self {
            css: file("css", name),
            js: file("js", name),
            wasm: file("wasm", if built_alone { &alone } else { name }),
        }
    }
}

/// The file lies beside the program, as cargo-leptos and the container image put it.
fn read_hashes(file: &str) -> String {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(file)));
    beside.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}
