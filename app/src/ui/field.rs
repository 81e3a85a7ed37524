//! Form fields: label, hint, error next to the field, all tied together for screen readers.

use leptos::html;
use leptos::prelude::*;

use crate::calls::FormState;
use crate::look::Look;
use crate::ui::icon::{Glyph, Icon};

/// The parts around an input: label above, hint and error below.
#[component]
pub(crate) fn Labelled(
    /// The input's id.
    id: &'static str,
    /// Its label.
    label: &'static str,
    /// What belongs in it.
    hint: Option<String>,
    /// What is wrong with it.
    error: Signal<Option<String>>,
    children: Children,
) -> impl IntoView {
    view! {
        <div class="field">
            <label for=id>{label}</label>
            {children()}
            {hint.map(|hint| view! { <p class="hint" id=hint_id(id)>{hint}</p> })}
            <p class="field-error" id=error_id(id) aria-live="polite">
                {move || error.get().map(|message| view! { <Icon glyph=Glyph::Alert /> <span>{message}</span> })}
            </p>
        </div>
    }
}

/// The id of the hint of an input.
pub(crate) fn hint_id(id: &str) -> String {
    format!("{id}-hint")
}

/// The id of the error of an input.
pub(crate) fn error_id(id: &str) -> String {
    format!("{id}-error")
}

/// What describes an input: its error, then its hint.
pub(crate) fn described_by(id: &str, has_hint: bool) -> String {
    if has_hint { format!("{} {}", error_id(id), hint_id(id)) } else { error_id(id) }
}

/// Keeps an input and a signal the same. What was typed or filled in before the page ran is taken over; from then on
/// the input tells through its event, and the signal wins when it is set from elsewhere.
pub(crate) fn keep_in_step(element: NodeRef<html::Input>, value: RwSignal<String>) {
    Effect::new(move |adopted: Option<bool>| {
        let wanted = value.get();
        let Some(element) = element.get() else { return false };
        let typed = element.value();
        if adopted != Some(true) && wanted.is_empty() && !typed.is_empty() {
            value.set(typed);
        } else if typed != wanted {
            element.set_value(&wanted);
        }
        true
    });
}

/// A field of one line.
#[component]
pub(crate) fn TextField(
    /// An id for the page.
    id: &'static str,
    /// The field's name in the errors of its form.
    name: &'static str,
    /// Its label.
    label: &'static str,
    /// What it holds.
    value: RwSignal<String>,
    /// The form it belongs to.
    form: FormState,
    /// What belongs in it.
    #[prop(optional, into)]
    hint: Option<String>,
    /// The input's type.
    #[prop(default = "text")]
    kind: &'static str,
    /// What browsers may fill in.
    #[prop(default = "off")]
    autocomplete: &'static str,
    /// The keyboard that phones show.
    #[prop(optional)]
    inputmode: Option<&'static str>,
    /// Whether it is addresses or codes rather than words.
    #[prop(optional)]
    mono: bool,
    /// Whether it gets the focus.
    #[prop(optional)]
    autofocus: bool,
    /// An example, shown while it is empty.
    #[prop(optional)]
    placeholder: Option<&'static str>,
    /// Says what is wrong with a value; asked when the field is left and, once wrong, as it is typed.
    #[prop(optional)]
    check: Option<fn(&str) -> Option<String>>,
) -> impl IntoView {
    let element = NodeRef::<html::Input>::new();
    keep_in_step(element, value);
    let error = Signal::derive(move || form.field(name));
    let judge = move |leaving: bool| {
        // A field that is taken out of the page loses the focus when its values are gone already.
        let (Some(wrong), Some(text)) = (error.try_get_untracked(), value.try_get_untracked()) else { return };
        if let Some(check) = check
            && (leaving || wrong.is_some())
        {
            form.set_field(name, if text.is_empty() { None } else { check(&text) });
        } else if wrong.is_some() {
            form.set_field(name, None);
        }
    };
    let described_by = described_by(id, hint.is_some());
    view! {
        <Labelled id label hint error>
            <input
                id=id
                name=name
                class="input"
                class:mono=mono
                type=kind
                data-field=name
                value=value.get_untracked()
                node_ref=element
                autocomplete=autocomplete
                inputmode=inputmode
                autofocus=autofocus
                placeholder=placeholder
                autocapitalize="none"
                spellcheck="false"
                aria-describedby=described_by
                aria-invalid=move || error.look(Option::is_some).then_some("true")
                on:input=move |event| {
                    value.set(event_target_value(&event));
                    judge(false);
                }
                on:blur=move |_| judge(true)
            />
        </Labelled>
    }
}

/// A choice of one among few.
#[component]
pub(crate) fn SelectField(
    /// An id for the page.
    id: &'static str,
    /// The field's name in the errors of its form.
    name: &'static str,
    /// Its label.
    label: &'static str,
    /// What is chosen.
    value: RwSignal<String>,
    /// The form it belongs to.
    form: FormState,
    /// Value and label of each choice.
    options: Vec<(&'static str, String)>,
    /// What the choice means.
    #[prop(optional, into)]
    hint: Option<String>,
) -> impl IntoView {
    let error = Signal::derive(move || form.field(name));
    let described_by = described_by(id, hint.is_some());
    let options = options
        .into_iter()
        .map(|(option, label)| {
            let chosen = move || value.get() == option;
            view! { <option value=option selected=value.get_untracked() == option prop:selected=chosen>{label}</option> }
        })
        .collect_view();
    view! {
        <Labelled id label hint error>
            <select
                id=id
                name=name
                class="input"
                data-field=name
                aria-describedby=described_by
                aria-invalid=move || error.look(Option::is_some).then_some("true")
                on:change=move |event| {
                    value.set(event_target_value(&event));
                    form.set_field(name, None);
                }
            >
                {options}
            </select>
        </Labelled>
    }
}

/// What is wrong with a form as a whole.
#[component]
pub(crate) fn FormMessage(form: FormState) -> impl IntoView {
    view! {
        <div class="form-message" role="alert">
            {move || form.message().map(|message| view! { <Icon glyph=Glyph::Alert /> <p>{message}</p> })}
        </div>
    }
}

/// The button that sends a form. Waits for the page to run, so that nothing typed is ever sent in the address bar.
#[component]
pub(crate) fn Submit(
    form: FormState,
    /// What it does.
    #[prop(into)]
    label: Signal<String>,
    /// Whether it takes the whole width.
    #[prop(optional)]
    wide: bool,
    /// Whether it can't be used yet.
    #[prop(optional, into)]
    disabled: Signal<bool>,
) -> impl IntoView {
    let clock = expect_context::<crate::clock::Clock>();
    view! {
        <button
            type="submit"
            class="button primary"
            class:wide=wide
            disabled=move || !clock.ticking() || disabled.get()
            aria-busy=move || form.busy.get().then_some("true")
        >
            {label}
        </button>
    }
}
