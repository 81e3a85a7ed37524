//! The head of a page: title, count, one sentence, at most three buttons with the main one last.

use leptos::prelude::*;
use leptos_meta::Title;

/// The head of a page.
#[component]
pub(crate) fn PageHeader(
    /// The page's name.
    title: &'static str,
    /// How many things it lists.
    #[prop(optional, into)]
    count: Option<Signal<Option<i64>>>,
    /// What they are, in one sentence.
    text: &'static str,
    /// Buttons.
    #[prop(optional)]
    children: Option<Children>,
) -> impl IntoView {
    view! {
        <Title text=title />
        <header class="page-header">
            <div class="page-title">
                <h1>{title}</h1>
                {count.map(|count| view! { <span class="count">{move || count.get().map(grouped)}</span> })}
            </div>
            <p class="page-text">{text}</p>
            {children.map(|children| view! { <div class="page-actions">{children()}</div> })}
        </header>
    }
}

/// A number with its thousands set apart: `1,204`.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::new();
    if number < 0 {
        grouped.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of things: `1 ban`, `2 bans`.
pub(crate) fn counted(number: i64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let read = [(0, "0"), (12, "12"), (999, "999"), (1204, "1,204"), (1_000_000, "1,000,000"), (-1234, "-1,234")];
        for (number, text) in read {
            assert_eq!(grouped(number), text);
        }
    }
}
