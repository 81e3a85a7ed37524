//! Importing from CSV: a file or pasted text, checked row by row before it is sent; all rows are taken or none.

use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use policy::csv_text::{self, RowError};
use wasm_bindgen::JsCast;

use crate::allowed_ips::api;
use crate::allowed_ips::page::Listing;
use crate::browser;
use crate::calls::FormState;
use crate::clock::browser_now;
use crate::look::Look;
use crate::ui::dialog::Dialog;
use crate::ui::field::{FormMessage, Submit};
use crate::ui::icon::{Glyph, Icon};
use crate::ui::page_header::counted;
use crate::ui::when::When;

/// How many wrong rows are listed.
const LISTED: usize = 20;

/// The dialog of "Import".
#[component]
pub(crate) fn ImportDialog(open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    view! {
        <Dialog id="import" open title="Import allowed addresses" wide=true>
            <ImportForm open listing />
        </Dialog>
    }
}

#[component]
fn ImportForm(open: RwSignal<bool>, listing: Listing) -> impl IntoView {
    let form = FormState::new();
    let text = RwSignal::new(String::new());
    let checked = Memo::new(move |_| {
        text.look(|text| {
            (!text.trim().is_empty())
                .then(|| csv_text::parse_allowed_ips(text.as_bytes(), browser_now()).map(|rows| rows.len()))
        })
    });
    let area = NodeRef::<html::Textarea>::new();
    let set = move |new: String| {
        form.clear();
        if let Some(area) = area.get_untracked() {
            area.set_value(&new);
        }
        text.set(new);
    };
    let picked = move |event: web_sys::Event| {
        let input = event.target().and_then(|target| target.dyn_into::<web_sys::HtmlInputElement>().ok());
        let Some(file) = input.and_then(|input| input.files()).and_then(|files| files.get(0)) else { return };
        if file.size() > 2_097_152.0 {
            form.show(crate::error::ApiError::Refused {
                message: "The file is larger than 2 MB. Split it.".to_owned(),
            });
            return;
        }
        spawn_local(async move {
            if let Some(content) = browser::read_file(file).await {
                set(content);
            }
        });
    };
    let submit = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let csv = text.get_untracked();
        form.send(
            "Allow all of them",
            move |_| api::import(csv.clone()),
            move |added| {
                open.set(false);
                listing.added(&added, &format!("{} taken.", counted(added.added, "row was", "rows were")));
            },
        );
    };
    let ready = move || matches!(checked.get(), Some(Ok(_)));
    let label = move || match checked.get() {
        Some(Ok(rows)) => format!("Import {}", counted(i64::try_from(rows).unwrap_or(0), "row", "rows")),
        Some(Err(_)) | None => "Import".to_owned(),
    };
    view! {
        <form method="post" on:submit=submit novalidate>
            <p class="dialog-text">
                "Columns " <code>"target"</code> ", " <code>"note"</code> " and " <code>"expires_at"</code>
                ", separated by commas or semicolons. All rows are taken, or none."
            </p>
            <When is=move || form.wrong_fields().is_empty()>
                <FormMessage form />
            </When>
            <div class="field">
                <label for="import-file">"File"</label>
                <input id="import-file" class="input" type="file" accept=".csv,text/csv,text/plain" on:change=picked />
            </div>
            <div class="field">
                <label for="import-text">"Or paste here"</label>
                <textarea
                    id="import-text"
                    class="input mono"
                    rows="8"
                    spellcheck="false"
                    node_ref=area
                    placeholder="target,note,expires_at"
                    on:input=move |event| {
                        form.clear();
                        text.set(event_target_value(&event));
                    }
                ></textarea>
            </div>
            <div role="status">
                {move || match checked.get() {
                    Some(Err(wrong)) => view! { <WrongRows wrong /> }.into_any(),
                    Some(Ok(rows)) if form.wrong_fields().is_empty() => {
                        let count = counted(i64::try_from(rows).unwrap_or(0), "row is", "rows are");
                        view! { <p class="import-ready"><Icon glyph=Glyph::Check /> {count} " ready."</p> }.into_any()
                    }
                    Some(Ok(_)) | None => {
                        let wrong = form
                            .wrong_fields()
                            .into_iter()
                            .map(|field| (field.field, field.message))
                            .collect::<Vec<_>>();
                        view! { <WrongLines wrong /> }.into_any()
                    }
                }}
            </div>
            <div class="dialog-actions">
                <button type="button" class="button" on:click=move |_| open.set(false)>"Cancel"</button>
                <Submit form label=Signal::derive(label) disabled=Signal::derive(move || !ready()) />
            </div>
        </form>
    }
}

#[component]
fn WrongRows(wrong: Vec<RowError>) -> impl IntoView {
    let wrong = wrong.into_iter().map(|row| (format!("line {}", row.line), row.message)).collect();
    view! { <WrongLines wrong /> }
}

#[component]
fn WrongLines(wrong: Vec<(String, String)>) -> impl IntoView {
    if wrong.is_empty() {
        return ().into_any();
    }
    let more = wrong.len().saturating_sub(LISTED);
    let count = counted(i64::try_from(wrong.len()).unwrap_or(0), "problem", "problems");
    let lines = wrong
        .into_iter()
        .take(LISTED)
        .map(|(line, message)| view! { <li><strong>{line}</strong> ": " {message}</li> })
        .collect_view();
    view! {
        <div class="wrong-lines">
            <p><Icon glyph=Glyph::Alert /> {count} ". Nothing was imported."</p>
            <ul>{lines}</ul>
            {(more > 0).then(|| format!("and {more} more"))}
        </div>
    }
    .into_any()
}
