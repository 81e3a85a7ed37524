//! What commands print. Everything else goes to the log.

/// A result.
#[expect(clippy::print_stdout, reason = "the result of a command")]
pub(super) fn print(text: &str) {
    println!("{text}");
}

/// Why a command failed.
pub(super) fn error(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
