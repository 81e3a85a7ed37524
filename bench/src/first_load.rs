//! What a browser fetches before the first page works, compressed as well as brotli can.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::report::{Report, say};

const SITE: &str = "target/site";
const EXTENSIONS: [&str; 6] = ["js", "wasm", "css", "html", "svg", "woff2"];

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    say("First load, brotli level 11");
    let mut files = Vec::new();
    for folder in [Path::new(SITE), &Path::new(SITE).join("pkg")] {
        files.extend(fetched_from(folder)?);
    }
    if !files.iter().any(|file| file.extension().is_some_and(|extension| extension == "wasm")) {
        say("  left out: target/site is not built; scripts/build.sh builds it\n");
        return Ok(());
    }
    files.sort();
    let mut sum = 0.0;
    for file in files {
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let (plain, packed) = (kib(bytes.len()), kib(brotli_size(&bytes)?));
        say(&format!("  {:<60} {plain:>8.1} KiB → {packed:>7.1} KiB", file.display().to_string()));
        sum += packed;
    }
    say(&format!("  {:<60} {:>14} {sum:>7.1} KiB\n", "together, beside the page's own HTML", ""));
    report.keep("first_load_brotli_kib", sum);
    Ok(())
}

/// Files of a folder (not below it) that a page refers to; none when there is no such folder.
fn fetched_from(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file()
            && path
                .extension()
                .and_then(|extension| extension.to_str())
                .is_some_and(|extension| EXTENSIONS.contains(&extension))
        {
            files.push(path);
        }
    }
    Ok(files)
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
