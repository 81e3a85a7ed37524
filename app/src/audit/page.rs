//! The page: the log, newest first, and the button that verifies it.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use policy::audit::{AuditFilter, AuditRow, ChainVerdict, Outcome};
use policy::paging::Page;

use crate::audit::panel::RowPanel;
use crate::audit::{api, words};
use crate::browser::address;
use crate::calls::{Calls, Loader, leave_if_signed_out};
use crate::clock::Since;
use crate::error::ApiError;
use crate::go::Go;
use crate::live::{Live, Topic};
use crate::load::load;
use crate::look::Look;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::page_header::{PageHeader, counted, grouped};
use crate::ui::states::{Empty, Failed, SkeletonRows};
use crate::ui::table::{FilterSelect, Pager, Pages, SearchField, at_top, use_table_keys};

const TITLE: &str = "Audit log";
const TEXT: &str = "Every change and every refusal, in a chain that shows if a row was altered or taken out.";

/// What the address bar says: what is searched, and which row is open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    filter: Memo<AuditFilter>,
    /// The number of the open row.
    pub(crate) row: Memo<Option<i64>>,
    go: Go,
}

impl Place {
    fn of_page() -> Self {
        let query = use_query_map();
        let get = move |name: &str| query.look(|query| query.get(name)).unwrap_or_default();
        Self {
            filter: Memo::new(move |_| AuditFilter {
                search: get("search"),
                action: get("action"),
                outcome: Outcome::from_name(&get("outcome")),
            }),
            row: Memo::new(move |_| get("row").parse().ok()),
            go: Go::of_page(),
        }
    }

    fn address(filter: &AuditFilter, row: Option<i64>) -> String {
        let outcome = filter.outcome.map_or("", Outcome::as_str);
        let row = row.map(|row| row.to_string()).unwrap_or_default();
        address(
            "/audit",
            &[("search", &filter.search), ("action", &filter.action), ("outcome", outcome), ("row", &row)],
        )
    }

    fn set_filter(self, change: impl FnOnce(&mut AuditFilter)) {
        let mut filter = self.filter.get_untracked();
        change(&mut filter);
        self.go.replace(Self::address(&filter, None));
    }

    /// Closes the open row.
    pub(crate) fn close(self) {
        self.go.to(Self::address(&self.filter.get_untracked(), None));
    }
}

/// `/audit`
#[component]
pub(crate) fn AuditPage() -> impl IntoView {
    let place = Place::of_page();
    let first = load(|| (), move |()| api::list(place.filter.get_untracked(), None));
    view! {
        <Suspense fallback=|| view! { <PageHeader title=TITLE text=TEXT /> <SkeletonRows /> }>
            {move || Suspend::new(async move {
                let page = first.await;
                view! { <List page place /> }
            })}
        </Suspense>
    }
}

#[component]
fn List(page: Result<Page<AuditRow>, ApiError>, place: Place) -> impl IntoView {
    let (loader, pages) = (Loader::new(page), Pages::new());
    let reload = move || loader.load(api::list(place.filter.get_untracked(), pages.after()));
    Effect::watch(
        move || place.filter.get(),
        move |_, _, _| {
            pages.reset();
            reload();
        },
        false,
    );
    Effect::new(move || loader.error.look(|error| error.iter().for_each(leave_if_signed_out)));
    expect_context::<Live>().on_change(&[Topic::Audit], move || {
        if pages.at_first_now() && at_top() {
            reload();
        }
    });
    use_table_keys();
    let calls = Calls::of_page();
    let verdict = RwSignal::new(None::<ChainVerdict>);
    let verifying = RwSignal::new(false);
    let verify = move |_| {
        verifying.set(true);
        verdict.set(None);
        leptos::task::spawn_local(async move {
            let answer = api::verify().await;
            let _ = verifying.try_set(false);
            match answer {
                Ok(found) => drop(verdict.try_set(Some(found))),
                Err(error) => calls.toasts.fail(&error),
            }
        });
    };
    let total = Signal::derive(move || loader.data.look(|page| page.as_ref().map(|page| page.total)));
    let empty = move || total.get().unwrap_or(0) == 0;
    view! {
        <PageHeader title=TITLE count=total text=TEXT>
            <button type="button" class="button primary" disabled=move || verifying.get() on:click=verify>
                <Icon glyph=Glyph::ShieldCheck />
                {move || if verifying.get() { "Verifying…" } else { "Verify the log" }}
            </button>
        </PageHeader>
        <div role="status">{move || verdict.get().map(|verdict| view! { <Verdict verdict /> })}</div>
        <Filters place />
        <div class="list-and-panel">
            <section class="list" aria-label="Audit log" aria-busy=move || loader.busy.get().to_string()>
                {move || loader.error.get().map(|error| view! { <Failed what="The log" error retry=move |()| reload() /> })}
                {move || {
                    (total.get() == Some(0))
                        .then(|| {
                            view! {
                                <Empty glyph=Glyph::Search title="Nothing matches" text="No row fits this search and these filters.">
                                    <a class="button" href="/audit">"Clear the search"</a>
                                </Empty>
                            }
                        })
                }}
                <div class="table-frame" hidden=empty>
                    <Rows loader place />
                </div>
                <div class="list-foot" hidden=empty>
                    <Pager
                        pages
                        shown=Signal::derive(move || loader.data.look(|page| page.as_ref().map_or(0, |page| page.rows.len())))
                        total=Signal::derive(move || total.get().unwrap_or(0))
                        next=Signal::derive(move || loader.data.look(|page| page.as_ref().and_then(|page| page.next.clone())))
                        go=move |()| reload()
                    />
                </div>
            </section>
            <RowPanel loader place />
        </div>
    }
}

#[component]
fn Filters(place: Place) -> impl IntoView {
    let option = |(value, label): (&str, &str)| (value.to_owned(), label.to_owned());
    view! {
        <div class="filters" role="search">
            <SearchField
                label="Search person, subject, action…"
                value=Signal::derive(move || place.filter.look(|filter| filter.search.clone()))
                search=move |text: String| place.set_filter(|filter| filter.search = text)
            />
            <FilterSelect
                label="What"
                value=Signal::derive(move || place.filter.look(|filter| filter.action.clone()))
                options=words::GROUPS.map(option).to_vec()
                choose=move |action: String| place.set_filter(|filter| filter.action = action)
            />
            <FilterSelect
                label="Outcome"
                value=Signal::derive(move || place.filter.look(|filter| filter.outcome.map_or("", Outcome::as_str).to_owned()))
                options=[("", "Done or refused"), ("done", "Done"), ("refused", "Refused")].map(option).to_vec()
                choose=move |name: String| place.set_filter(|filter| filter.outcome = Outcome::from_name(&name))
            />
        </div>
    }
}

#[component]
fn Rows(loader: Loader<Page<AuditRow>>, place: Place) -> impl IntoView {
    view! {
        <table class="table audit">
            <caption class="visually-hidden">"Audit log"</caption>
            <thead>
                <tr>
                    <th class="col-number" scope="col">"No."</th>
                    <th class="col-time" scope="col">"When"</th>
                    <th class="col-who" scope="col">"Who"</th>
                    <th class="col-what" scope="col">"What"</th>
                    <th class="col-why" scope="col">"To what"</th>
                    <th class="col-from" scope="col">"From"</th>
                    <th class="col-outcome" scope="col">"Outcome"</th>
                </tr>
            </thead>
            <tbody>
                <For
                    each=move || loader.data.look(|page| page.as_ref().map(|page| page.rows.clone()).unwrap_or_default())
                    key=|row| row.id.0
                    let:row
                >
                    <Row row place />
                </For>
            </tbody>
        </table>
    }
}

#[component]
fn Row(row: AuditRow, place: Place) -> impl IntoView {
    let AuditRow { seq, at, actor, action, outcome, subject, details, source, .. } = row;
    let href = move || place.filter.look(|filter| Place::address(filter, Some(seq)));
    let open = move || place.row.get() == Some(seq);
    let who = actor.clone();
    view! {
        <tr data-row tabindex="-1" class:open=open>
            <td class="col-number mono"><a data-open href=href aria-label=format!("Row {seq}")>{seq}</a></td>
            <td class="col-time"><Since at=at /></td>
            <td class="col-who" title=who>{actor}</td>
            <td class="col-what">{words::what(&action, &details).to_owned()}</td>
            <td class="col-why">{subject}</td>
            <td class="col-from mono">{source}</td>
            <td class="col-outcome"><OutcomeWord outcome /></td>
        </tr>
    }
}

/// Whether it was done.
#[component]
pub(crate) fn OutcomeWord(outcome: Outcome) -> impl IntoView {
    let (glyph, word) = match outcome {
        Outcome::Done => (Glyph::Check, "Done"),
        Outcome::Refused => (Glyph::Ban, "Refused"),
    };
    view! { <span class="outcome" data-outcome=outcome.as_str()><Icon glyph /> {word}</span> }
}

#[component]
fn Verdict(verdict: ChainVerdict) -> impl IntoView {
    let ChainVerdict { rows, last_hash, broken } = verdict;
    match broken {
        None => view! {
            <div class="verdict good">
                <Icon glyph=Glyph::Proven />
                <div>
                    <p>{format!("The chain is intact: {} checked.", counted(rows, "row", "rows"))}</p>
                    <p class="hint">"Last hash, to be noted elsewhere: " <code class="digest">{last_hash}</code></p>
                </div>
            </div>
        }
        .into_any(),
        Some(at) => view! {
            <div class="verdict bad">
                <Icon glyph=Glyph::Alert />
                <div>
                    <p>{format!("The chain is broken at row {}: {}.", grouped(at.seq), at.problem)}</p>
                    <p class="hint">"Someone changed the database behind Ringfence's back. Keep a copy of it and tell your operator."</p>
                </div>
            </div>
        }
        .into_any(),
    }
}
