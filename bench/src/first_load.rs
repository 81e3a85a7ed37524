//! What a browser fetches before a page works that is the first one opened, compressed as well as brotli can. What it fetches
//! afterwards while it is idle is not counted.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::report::{Report, say};

const SITE: &str = "target/site";

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    say("First load, brotli level 11, beside the page's own HTML");
    let package = Path::new(SITE).join("pkg");
    let Ok(mut files) = fetched_by_all(&package) else {
        say("  left out: target/site is not built; scripts/build.sh builds it\n");
        return Ok(());
    };
    let first = size(&files)?;
    say(&format!("  login, sign-up, overview {:>3} files {first:>8.1} KiB", files.len()));
    files.extend(lists(&package)?);
    let list = size(&files)?;
    say(&format!("  a list from a bookmark   {:>3} files {list:>8.1} KiB\n", files.len()));
    report.keep("first_load_brotli_kib", first);
    report.keep("first_load_list_brotli_kib", list);
    Ok(())
}

fn size(files: &[PathBuf]) -> anyhow::Result<f64> {
    let sizes = files.iter().map(|file| {
        let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(kib(brotli_size(&bytes)?))
    });
    sizes.sum()
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

/// The rest of the program, from the manifest that the build writes.
fn lists(package: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let manifest = std::fs::read_dir(package)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("__wasm_split_manifest") && path.extension().is_some_and(|extension| extension == "json")
        })
        .context("no manifest of the program's parts")?;
    let manifest: BTreeMap<String, Vec<String>> = serde_json::from_slice(&std::fs::read(manifest)?)?;
    Ok(manifest.into_values().flatten().map(|file| package.join(format!("{file}.wasm"))).collect())
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
