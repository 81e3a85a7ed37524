//! What lists share: keys, search, filters, sorting of what is all there, pages, and rows that arrive while one reads.

use std::cmp::Ordering;
use std::future::Future;
use std::time::Duration;

use leptos::html;
use leptos::prelude::*;
use policy::paging::{COUNT_LIMIT, PAGE_ROWS, Page};
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

use crate::browser;
use crate::error::ApiError;
use crate::look::{Look, Peek};
use crate::ui::icon::{Glyph, Icon};
use crate::ui::page_header::grouped;

/// Lets a list be used by keys: j and k move between rows, x selects, Enter opens, / searches. Rows are marked with
/// `data-row`, what opens one with `data-open`. For the set-up of a page.
pub(crate) fn use_table_keys() {
    Effect::new(|| {
        let keys = window_event_listener(leptos::ev::keydown, |event| {
            let elsewhere = event.ctrl_key() || event.meta_key() || event.alt_key() || browser::is_typing(&event);
            let dialog = document().query_selector("dialog[open]").ok().flatten().is_some();
            if !elsewhere && !dialog && press(&event.key()) {
                event.prevent_default();
            }
        });
        on_cleanup(move || keys.remove());
    });
}

/// Does what a key stands for; false when it stands for nothing here.
fn press(key: &str) -> bool {
    let focused = document().active_element();
    let row = focused.as_ref().and_then(|focused| focused.closest("[data-row]").ok().flatten());
    let within = |selector: &str| {
        row.as_ref().and_then(|row| row.query_selector(selector).ok().flatten()).and_then(html_element)
    };
    match key {
        "j" | "k" => {
            let Ok(rows) = document().query_selector_all("[data-row]") else { return false };
            let rows: Vec<_> =
                (0..rows.length()).filter_map(|index| rows.item(index)?.dyn_into().ok()).collect::<Vec<HtmlElement>>();
            let at = rows.iter().position(|other| row.as_ref() == Some(other.as_ref()));
            let next = match (at, key) {
                (None, _) => 0,
                (Some(at), "j") => at + 1,
                (Some(at), _) => at.saturating_sub(1),
            };
            rows.get(next).is_some_and(|row| row.focus().is_ok())
        }
        "x" => within("input[type=checkbox]").map(|checkbox| checkbox.click()).is_some(),
        // Enter on a link or button inside a row keeps its own meaning.
        "Enter" if focused.is_some_and(|focused| focused.has_attribute("data-row")) => {
            within("[data-open]").map(|opener| opener.click()).is_some()
        }
        "/" => browser::element("search").is_some_and(|search| search.focus().is_ok()),
        _ => false,
    }
}

fn html_element(element: web_sys::Element) -> Option<HtmlElement> {
    element.dyn_into().ok()
}

/// Where in a list of pages one is: the cursors of the pages before, oldest first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages(RwSignal<Vec<String>>);

impl Pages {
    /// At the first page.
    pub(crate) fn new() -> Self {
        Self(RwSignal::new(Vec::new()))
    }

    /// Back to the first page.
    pub(crate) fn reset(self) {
        self.0.set(Vec::new());
    }

    /// Whether it is the first page.
    pub(crate) fn at_first(self) -> bool {
        self.0.look(Vec::is_empty)
    }

    /// The same, without following it.
    pub(crate) fn at_first_now(self) -> bool {
        self.0.peek(Vec::is_empty)
    }

    /// The cursor that the page begins after, without following it.
    pub(crate) fn after(self) -> Option<String> {
        self.0.peek(|cursors| cursors.last().cloned())
    }

    /// Loads the page it stands at; when that has lost its last row meanwhile, the one before.
    pub(crate) async fn load<T, F>(self, call: impl Fn(Option<String>) -> F) -> Result<Page<T>, ApiError>
    where
        F: Future<Output = Result<Page<T>, ApiError>>,
    {
        let mut after = self.after();
        loop {
            let page = call(after.clone()).await?;
            if !page.rows.is_empty() || !self.back_from(after.as_deref()) {
                return Ok(page);
            }
            after = self.after();
        }
    }

    /// Back to the page before; false at the first one, and when somebody has gone elsewhere meanwhile.
    fn back_from(self, after: Option<&str>) -> bool {
        let back = self.0.try_maybe_update(|cursors| {
            let back = after.is_some() && cursors.last().map(String::as_str) == after;
            if back {
                cursors.pop();
            }
            (back, back)
        });
        back == Some(true)
    }

    fn rows_before(self) -> i64 {
        i64::try_from(self.0.look(Vec::len)).unwrap_or(0) * PAGE_ROWS
    }
}

/// The place in the list and the buttons to the next and previous page.
#[component]
pub(crate) fn Pager(
    pages: Pages,
    /// How many rows this page has.
    #[prop(into)]
    shown: Signal<usize>,
    /// How many rows all pages have.
    #[prop(into)]
    total: Signal<i64>,
    /// Where the next page begins.
    #[prop(into)]
    next: Signal<Option<String>>,
    /// Loads the page that `pages` now stands at.
    #[prop(into)]
    go: Callback<()>,
) -> impl IntoView {
    let place = move || {
        let first = pages.rows_before() + 1;
        let last = pages.rows_before() + i64::try_from(shown.get()).unwrap_or(0);
        let more = if total.get() >= COUNT_LIMIT { "more than " } else { "" };
        format!("{}-{} of {more}{}", grouped(first), grouped(last), grouped(total.get()))
    };
    let forward = move |_| {
        if let Some(cursor) = next.get_untracked() {
            pages.0.update(|cursors| cursors.push(cursor));
            go.run(());
        }
    };
    let back = move |_| {
        pages.0.update(|cursors| drop(cursors.pop()));
        go.run(());
    };
    let one_page = move || pages.at_first() && next.look(Option::is_none);
    view! {
        <nav class="pager" aria-label="Pages">
            <span role="status">{place}</span>
            <span class="pager-buttons" hidden=one_page>
                <button type="button" class="icon-button" aria-label="Previous page" disabled=move || pages.at_first() on:click=back>
                    <Icon glyph=Glyph::ChevronLeft />
                </button>
                <button type="button" class="icon-button" aria-label="Next page" disabled=move || next.look(Option::is_none) on:click=forward>
                    <Icon glyph=Glyph::ChevronRight />
                </button>
            </span>
        </nav>
    }
}

/// The search field of a list; tells after a short rest.
#[component]
pub(crate) fn SearchField(
    /// What it finds.
    label: &'static str,
    /// What is searched for, from the address bar.
    #[prop(into)]
    value: Signal<String>,
    /// Takes what is typed.
    #[prop(into)]
    search: Callback<String>,
) -> impl IntoView {
    let element = NodeRef::<html::Input>::new();
    let newest = StoredValue::new(0u32);
    // Someone else, such as the back button, changed it.
    Effect::new(move || {
        let wanted = value.get();
        if let Some(element) = element.get()
            && element.value() != wanted
            && document().active_element().as_ref() != Some(element.as_ref())
        {
            element.set_value(&wanted);
        }
    });
    let typed = move |event: web_sys::Event| {
        let text = event_target_value(&event);
        let ticket = newest.get_value().wrapping_add(1);
        newest.set_value(ticket);
        let tell = move || {
            if newest.try_get_value() == Some(ticket) {
                search.run(text.trim().to_owned());
            }
        };
        set_timeout(tell, Duration::from_millis(250));
    };
    view! {
        <div class="search">
            <Icon glyph=Glyph::Search />
            <input
                id="search"
                type="search"
                class="input"
                aria-label=label
                placeholder=label
                value=value.get_untracked()
                node_ref=element
                autocomplete="off"
                spellcheck="false"
                on:input=typed
            />
            <kbd aria-hidden="true">"/"</kbd>
        </div>
    }
}

/// A filter of a list: one of a few values, or all.
#[component]
pub(crate) fn FilterSelect(
    /// What it filters by.
    label: &'static str,
    /// The value chosen, from the address bar; empty for all.
    #[prop(into)]
    value: Signal<String>,
    /// Values and their labels; the empty value is all.
    options: Vec<(String, String)>,
    /// Takes the choice.
    #[prop(into)]
    choose: Callback<String>,
) -> impl IntoView {
    let options = options
        .into_iter()
        .map(|(option, label)| {
            let first = value.peek(|value| *value == option);
            let chosen = {
                let option = option.clone();
                move || value.look(|value| *value == option)
            };
            view! { <option value=option selected=first prop:selected=chosen>{label}</option> }
        })
        .collect_view();
    view! {
        <select class="input filter" aria-label=label on:change=move |event| choose.run(event_target_value(&event))>
            {options}
        </select>
    }
}

/// By which column a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sort {
    /// The column, as its page numbers them.
    pub(crate) column: u8,
    /// From the largest down.
    pub(crate) descending: bool,
}

impl Sort {
    /// The order of two rows whose order by the column is `ascending`.
    pub(crate) fn apply(self, ascending: Ordering) -> Ordering {
        if self.descending { ascending.reverse() } else { ascending }
    }
}

/// The head of a column that can be sorted by. Sorting is offered only where all rows are on the page: a sorted part of
/// a longer list would look like its top.
#[component]
pub(crate) fn SortHead(
    label: &'static str,
    column: u8,
    sort: RwSignal<Option<Sort>>,
    /// Whether all rows are on the page.
    #[prop(into, default = Signal::stored(true))]
    all_there: Signal<bool>,
    /// The cells' class, for their width.
    class: &'static str,
) -> impl IntoView {
    let here = move || sort.get().filter(|sort| sort.column == column && all_there.get());
    let aria = move || match here() {
        None => "none",
        Some(Sort { descending: true, .. }) => "descending",
        Some(Sort { descending: false, .. }) => "ascending",
    };
    let press = move |_| {
        sort.update(|sort| {
            *sort = match *sort {
                Some(before) if before.column == column && before.descending => None,
                Some(before) if before.column == column => Some(Sort { column, descending: true }),
                _ => Some(Sort { column, descending: false }),
            };
        });
    };
    view! {
        <th scope="col" class=class aria-sort=aria>
            <Show when=move || all_there.get() fallback=move || label>
                <button type="button" class="sort" on:click=press>
                    {label}
                    {move || {
                        here().map(|sort| view! { <Icon glyph=if sort.descending { Glyph::ArrowDown } else { Glyph::ArrowUp } /> })
                    }}
                </button>
            </Show>
        </th>
    }
}

/// Rows that arrived while one was reading further down or had rows selected.
#[component]
pub(crate) fn NewRows(
    /// How many; nothing is shown for none.
    #[prop(into)]
    count: Signal<usize>,
    /// Shows them.
    #[prop(into)]
    show: Callback<()>,
) -> impl IntoView {
    view! {
        <div class="new-rows" role="status">
            <Show when=move || count.get() != 0>
                <button type="button" class="button" on:click=move |_| show.run(())>
                    <Icon glyph=Glyph::ArrowUp />
                    {move || format!("{} new", count.get())}
                </button>
            </Show>
        </div>
    }
}

/// Whether the page is scrolled to its top, so that rows may move without anyone losing their place.
pub(crate) fn at_top() -> bool {
    window().scroll_y().unwrap_or(0.0) < 40.0
}
