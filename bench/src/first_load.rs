//! What a browser fetches before a page works that is the first one opened, compressed as well as brotli can. What it fetches
//! afterwards while it is idle is not counted. The largest of the pages is kept.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::report::{Report, say};

const SITE: &str = "target/site";
/// Whoever isn't signed in begins at the login, whoever is at the overview; a list is opened first from a bookmark. Each with
/// the pieces of the program that the shell has fetched for it (`app/src/routes.rs`).
const PAGES: [(&str, &[&str]); 3] =
    [("/login", &["account"]), ("/", &["console"]), ("/blocked-ips", &["console", "lists"])];

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    say("First load, brotli level 11, beside the page's own HTML");
    let package = Path::new(SITE).join("pkg");
    let Ok(whole) = fetched_by_all(&package) else {
        say("  left out: target/site is not built; scripts/build.sh builds it\n");
        return Ok(());
    };
    let pieces = pieces(&package)?;
    let mut largest: f64 = 0.0;
    for (page, needed) in PAGES {
        let mut files = whole.clone();
        for piece in needed {
            files.extend(pieces.get(*piece).with_context(|| format!("no piece {piece} in the build"))?.clone());
        }
        files.sort();
        files.dedup();
        let mut sum = 0.0;
        for file in &files {
            let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            sum += kib(brotli_size(&bytes)?);
        }
        say(&format!("  {page:<20} {:>3} files {sum:>8.1} KiB", files.len()));
        largest = largest.max(sum);
    }
    say("");
    report.keep("first_load_brotli_kib", largest);
    Ok(())
}

/// What every page refers to: style sheet, icon, the program's beginning and what loads it.
fn fetched_by_all(package: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = vec![Path::new(SITE).join("favicon.svg")];
    for entry in std::fs::read_dir(package)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let whole = matches!(extension, "js" | "css") || (extension == "wasm" && name.starts_with("ringfence"));
        if whole {
            files.push(path);
        }
    }
    anyhow::ensure!(
        files.iter().any(|file| file.extension().is_some_and(|extension| extension == "wasm")),
        "not built"
    );
    Ok(files)
}

/// The files of each piece of the program, from the manifest that the build writes.
fn pieces(package: &Path) -> anyhow::Result<BTreeMap<String, Vec<PathBuf>>> {
    let manifest = std::fs::read_dir(package)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("__wasm_split_manifest") && path.extension().is_some_and(|extension| extension == "json")
        })
        .context("no manifest of the program's pieces")?;
    let manifest: BTreeMap<String, Vec<String>> = serde_json::from_slice(&std::fs::read(manifest)?)?;
    let piece = |(name, files): (String, Vec<String>)| {
        let name = name.rsplit_once('_').map_or(name.as_str(), |(name, _)| name).to_owned();
        (name, files.into_iter().map(|file| package.join(format!("{file}.wasm"))).collect())
    };
    Ok(manifest.into_iter().map(piece).collect())
}

fn brotli_size(bytes: &[u8]) -> anyhow::Result<usize> {
    let mut writer = brotli::CompressorWriter::new(Vec::new(), 64 * 1024, 11, 22);
    writer.write_all(bytes)?;
    Ok(writer.into_inner().len())
}

#[expect(clippy::cast_precision_loss, reason = "files are smaller than 2^52 bytes")]
fn kib(bytes: usize) -> f64 {
    bytes as f64 / 1024.0
}
