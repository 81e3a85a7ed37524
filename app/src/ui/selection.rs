//! Which rows of a list are selected.

use std::collections::BTreeSet;

use leptos::prelude::*;

use crate::look::{Look, Peek};
use uuid::Uuid;

/// The selected rows, by id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection(RwSignal<BTreeSet<Uuid>>);

impl Selection {
    /// Nothing selected.
    pub(crate) fn new() -> Self {
        Self(RwSignal::new(BTreeSet::new()))
    }

    /// How many are selected.
    pub(crate) fn count(self) -> usize {
        self.0.look(BTreeSet::len)
    }

    /// Whether any are selected, without following it.
    pub(crate) fn any_now(self) -> bool {
        self.0.peek(|selected| !selected.is_empty())
    }

    /// Whether a row is selected.
    pub(crate) fn has(self, id: Uuid) -> bool {
        self.0.look(|selected| selected.contains(&id))
    }

    /// Selects a row or takes it out.
    pub(crate) fn toggle(self, id: Uuid) {
        self.0.update(|selected| {
            if !selected.remove(&id) {
                selected.insert(id);
            }
        });
    }

    /// Selects exactly these.
    pub(crate) fn set(self, ids: impl IntoIterator<Item = Uuid>) {
        self.0.set(ids.into_iter().collect());
    }

    /// Selects nothing.
    pub(crate) fn clear(self) {
        if self.0.peek(|selected| !selected.is_empty()) {
            self.0.update(BTreeSet::clear);
        }
    }

    /// The selected ids, without following them.
    pub(crate) fn ids(self) -> Vec<Uuid> {
        self.0.peek(|selected| selected.iter().copied().collect())
    }
}

/// The box that selects a row.
#[component]
pub(crate) fn SelectRow(
    selection: Selection,
    id: Uuid,
    /// What the row is about.
    #[prop(into)]
    name: String,
) -> impl IntoView {
    view! {
        <input
            type="checkbox"
            class="checkbox"
            aria-label=format!("Select {name}")
            prop:checked=move || selection.has(id)
            on:change=move |_| selection.toggle(id)
        />
    }
}

/// The box in the table's head that selects all rows of the page or none.
#[component]
pub(crate) fn SelectPage(
    selection: Selection,
    /// The ids of the page's rows.
    #[prop(into)]
    page: Signal<Vec<Uuid>>,
) -> impl IntoView {
    let all = move || page.look(|page| !page.is_empty() && page.iter().all(|id| selection.has(*id)));
    view! {
        <input
            type="checkbox"
            class="checkbox"
            aria-label="Select all rows of this page"
            prop:checked=all
            prop:indeterminate=move || selection.count() != 0 && !all()
            on:change=move |event| if event_target_checked(&event) { selection.set(page.get()) } else { selection.clear() }
        />
    }
}
