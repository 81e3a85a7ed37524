//! `/dev/mailbox`: the mail that was not sent because no mail server is configured. Exists in development only, and for this
//! machine only, since the links in it open accounts.

use std::fmt::Write as _;
use std::net::SocketAddr;

use actions::Ctx;
use app::context::ClientAddress;
use app::error::ApiError;
use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::response::Html;

use super::api_errors::ApiFailure;

const SHOWN: i64 = 50;

/// The page.
pub async fn show(
    State(ctx): State<Ctx>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
) -> Result<Html<String>, ApiFailure> {
    // Both: what comes through a proxy on this machine comes from elsewhere.
    if ![peer.ip(), client].iter().all(|address| address.to_canonical().is_loopback()) {
        return Err(ApiFailure(ApiError::NotFound));
    }
    let mails = store::mails::newest(ctx.store(), SHOWN).await.map_err(actions::ActError::from)?;
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Mailbox · Ringfence</title></head><body><main><h1>Mailbox</h1>\
         <p>No mail server is configured, so this is where mail ends up. For development only.</p>",
    );
    if mails.is_empty() {
        page.push_str("<p>No mail yet.</p>");
    }
    for mail in mails {
        let at = mail.created_at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(
            page,
            "<article><h2>{}</h2><p>To {} at <time>{at}</time></p><pre>{}</pre></article><hr>",
            escape(&mail.subject),
            escape(&mail.recipient),
            with_links(&mail.body)
        );
    }
    page.push_str("</main></body></html>");
    Ok(Html(page))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// The text with its links made clickable.
fn with_links(text: &str) -> String {
    let link = |word: &str| {
        let escaped = escape(word);
        if word.starts_with("http://") || word.starts_with("https://") {
            format!("<a href=\"{escaped}\">{escaped}</a>")
        } else {
            escaped
        }
    };
    let lines = text.lines().map(|line| line.split(' ').map(link).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_can_be_clicked_and_nothing_else_is_html() {
        assert_eq!(
            with_links("Hi <b>\nhttp://x/verify?a=1&b=\"2"),
            "Hi &lt;b&gt;\n<a href=\"http://x/verify?a=1&amp;b=&quot;2\">http://x/verify?a=1&amp;b=&quot;2</a>"
        );
    }
}
