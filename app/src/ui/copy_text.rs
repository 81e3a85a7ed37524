//! A text to be copied elsewhere, such as a command.

use leptos::prelude::*;
use leptos::task::spawn_local;

use crate::browser;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::toast::Toasts;

/// Copies a text and tells whether it worked.
pub(crate) fn copy(toasts: Toasts, text: String) {
    spawn_local(async move {
        if browser::copy(text).await {
            toasts.say("Copied.");
        } else {
            toasts.warn("The browser doesn't let this page copy. Select the text and copy it by hand.");
        }
    });
}

/// A command or key with a button that copies it.
#[component]
pub(crate) fn CopyText(
    /// The text.
    #[prop(into)]
    text: String,
    /// What the button is called, such as `Copy the command`.
    label: &'static str,
) -> impl IntoView {
    let toasts = expect_context::<Toasts>();
    view! {
        <div class="copy-text">
            <code tabindex="0">{text.clone()}</code>
            <button type="button" class="button" on:click=move |_| copy(toasts, text.clone())>
                <Icon glyph=Glyph::Copy />
                {label}
            </button>
        </div>
    }
}
