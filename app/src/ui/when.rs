//! What is shown only at times.

use leptos::prelude::*;

/// Shows its children while `is` holds. Like `Show`, but its code exists once, not once per use.
#[component]
pub(crate) fn When(
    /// Whether they are shown.
    #[prop(into)]
    is: Signal<bool>,
    children: ChildrenFn,
) -> impl IntoView {
    let is = Memo::new(move |_| is.get());
    move || is.get().then(|| children())
}
