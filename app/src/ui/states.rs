//! What a list or page shows when it has nothing, is loading, or failed.

use leptos::prelude::*;

use crate::error::ApiError;
use crate::ui::icon::{Glyph, Icon};

/// Nothing there: what this is for and, as children, the button that starts.
#[component]
pub(crate) fn Empty(
    glyph: Glyph,
    /// What is missing.
    #[prop(into)]
    title: String,
    /// What this is for.
    #[prop(into)]
    text: String,
    #[prop(optional)] children: Option<Children>,
) -> impl IntoView {
    view! {
        <div class="empty">
            <Icon glyph />
            <h2>{title}</h2>
            <p>{text}</p>
            {children.map(|children| view! { <div class="empty-actions">{children()}</div> })}
        </div>
    }
}

/// What failed, with a way to try again.
#[component]
pub(crate) fn Failed(
    /// What could not be shown.
    #[prop(into)]
    what: String,
    /// Why.
    error: ApiError,
    /// Tries again.
    #[prop(into)]
    retry: Callback<()>,
) -> impl IntoView {
    view! {
        <div class="failed" role="alert">
            <Icon glyph=Glyph::Alert />
            <div>
                <p class="failed-title">{what} " could not be loaded."</p>
                <p>{error.to_string()}</p>
            </div>
            <button type="button" class="button" on:click=move |_| retry.run(())>
                <Icon glyph=Glyph::Refresh />
                "Retry"
            </button>
        </div>
    }
}

/// The shape of a list that is still loading; shows itself only after a moment.
#[component]
pub(crate) fn SkeletonRows(
    /// How many rows.
    #[prop(default = 8)]
    rows: usize,
) -> impl IntoView {
    let rows = (0..rows)
        .map(|_| view! { <div class="skeleton-row"><span></span><span></span><span></span></div> })
        .collect_view();
    view! { <div class="skeleton" role="status" aria-label="Loading">{rows}</div> }
}
