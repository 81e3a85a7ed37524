//! One row of the log with everything it holds.

use std::fmt::Write as _;

use leptos::prelude::*;
use policy::audit::AuditRow;
use policy::paging::Page;

use crate::audit::page::{OutcomeWord, Place};
use crate::audit::words;
use crate::calls::Loader;
use crate::clock::Instant;
use crate::json;
use crate::look::Look;
use crate::ui::panel::SidePanel;

/// The panel of the row that the address bar names, if it is on the page that is shown.
#[component]
pub(crate) fn RowPanel(loader: Loader<Page<AuditRow>>, place: Place) -> impl IntoView {
    let open = Memo::new(move |_| {
        let seq = place.row.get()?;
        loader.data.look(|page| page.as_ref()?.rows.iter().find(|row| row.seq == seq).cloned())
    });
    move || open.get().map(|row| view! { <Shown row place /> })
}

#[component]
fn Shown(row: AuditRow, place: Place) -> impl IntoView {
    let AuditRow { seq, at, actor, action, outcome, subject, details, source, previous_hash, hash, .. } = row;
    let what = words::what(&action, &details).to_owned();
    let details = json::members(&details)
        .into_iter()
        .map(|(name, value)| view! { <dt>{words::detail(&name).to_owned()}</dt> <dd class="detail">{value}</dd> })
        .collect_view();
    let source = (!source.is_empty()).then_some(source);
    view! {
        <SidePanel title=format!("Row {seq}") close=move |()| place.close()>
            <p class="panel-state">{what} " " <strong>{subject}</strong></p>
            <dl class="facts">
                <dt>"Outcome"</dt>
                <dd><OutcomeWord outcome /></dd>
                <dt>"Who"</dt>
                <dd>{actor}</dd>
                <dt>"When"</dt>
                <dd><Instant at /></dd>
                {source.map(|source| view! { <dt>"From"</dt> <dd class="mono">{source}</dd> })}
                <dt>"Action"</dt>
                <dd class="mono">{action}</dd>
                {details}
                <dt>"Hash"</dt>
                <dd><code class="digest">{hexadecimal(&hash)}</code></dd>
                <dt>"Hash before"</dt>
                <dd><code class="digest">{hexadecimal(&previous_hash)}</code></dd>
            </dl>
        </SidePanel>
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
