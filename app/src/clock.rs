//! Times as people read them. The server renders the instant in UTC; once the page runs, one ticking clock turns all of
//! them into relative times, with the exact local instant on hover and focus.

use std::time::Duration;

use leptos::prelude::*;
use policy::blocked_ips::short_duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wasm_bindgen::JsValue;

/// The page's clock; stands still until the page runs in a browser.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    now: RwSignal<Option<i64>>,
    ticking: RwSignal<bool>,
}

impl Clock {
    /// Puts a clock in the context and lets it tick.
    pub(crate) fn provide() -> Self {
        let clock = Self { now: RwSignal::new(None), ticking: RwSignal::new(false) };
        provide_context(clock);
        Effect::new(move || {
            let tick = move || {
                let _ = clock.now.try_set(Some(browser_seconds()));
            };
            tick();
            clock.ticking.set(true);
            set_interval(tick, Duration::from_secs(1));
        });
        clock
    }

    /// Seconds since 1970; `None` until the page runs. Changes every second.
    pub(crate) fn now(self) -> Option<i64> {
        self.now.get()
    }

    /// The same, without following it.
    pub(crate) fn now_untracked(self) -> Option<i64> {
        self.now.get_untracked()
    }

    /// Whether the page runs, so that local time can be shown. Changes once.
    pub(crate) fn ticking(self) -> bool {
        self.ticking.get()
    }
}

/// The browser's time. For event handlers and effects.
pub(crate) fn browser_now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(browser_seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970 fit into 53 bits")]
fn browser_seconds() -> i64 {
    (js_sys::Date::now() / 1000.0) as i64
}

/// The instant in UTC, the same on the server and in the browser.
pub(crate) fn in_utc(at: OffsetDateTime) -> String {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, _) = at.to_hms();
    let month = month.to_string();
    format!("{day} {} {year}, {hour:02}:{minute:02} UTC", month.get(..3).unwrap_or(&month))
}

/// The instant in the browser's zone and language.
fn in_local_time(at: OffsetDateTime) -> String {
    String::from(js_date(at).to_locale_string("default", &JsValue::UNDEFINED))
}

/// The hour of the day in the browser's zone, such as `14:00`.
pub(crate) fn local_hour(at: OffsetDateTime) -> String {
    let date = js_date(at);
    format!("{:02}:{:02}", date.get_hours(), date.get_minutes())
}

/// What a date and time field holds, read in the browser's zone, as an RFC 3339 instant; empty stays empty.
pub(crate) fn from_local_field(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let date = js_sys::Date::new(&JsValue::from_str(text));
    // Converting a date that is none throws.
    if date.get_time().is_nan() { text.to_owned() } else { date.to_iso_string().into() }
}

/// An instant as a date and time field holds it, in the browser's zone.
pub(crate) fn to_local_field(at: OffsetDateTime) -> String {
    let date = js_date(at);
    let (year, month, day) = (date.get_full_year(), date.get_month() + 1, date.get_date());
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}", date.get_hours(), date.get_minutes())
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit into 53 bits")]
fn js_date(at: OffsetDateTime) -> js_sys::Date {
    js_sys::Date::new(&JsValue::from_f64(at.unix_timestamp() as f64 * 1000.0))
}

/// The instant for machines.
fn machine(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// The exact instant: UTC first, local time once the page runs.
fn exact(clock: Clock, at: OffsetDateTime) -> impl Fn() -> String + Copy {
    move || if clock.ticking() { in_local_time(at) } else { in_utc(at) }
}

/// An exact instant.
#[component]
pub(crate) fn Instant(at: OffsetDateTime) -> impl IntoView {
    let exact = exact(expect_context(), at);
    view! { <time datetime=machine(at)>{exact}</time> }
}

/// How long ago something was: `2 min`.
#[component]
pub(crate) fn Since(
    at: OffsetDateTime,
    /// What follows the duration, such as ` ago`.
    #[prop(optional)]
    suffix: &'static str,
) -> impl IntoView {
    let clock = expect_context::<Clock>();
    let exact = exact(clock, at);
    let text = move || match clock.now() {
        None => in_utc(at),
        Some(now) if now - at.unix_timestamp() < 2 => "now".to_owned(),
        Some(now) => short_duration(now - at.unix_timestamp()) + suffix,
    };
    view! { <time class="relative" datetime=machine(at) title=exact>{text}</time> }
}

/// How long until something ends: `58 min`, counting down; `ended` afterwards.
#[component]
pub(crate) fn Until(
    at: Option<OffsetDateTime>,
    /// What to say when it has passed.
    #[prop(default = "ended")]
    passed: &'static str,
) -> impl IntoView {
    let Some(at) = at else { return view! { <span>"never"</span> }.into_any() };
    let clock = expect_context::<Clock>();
    let exact = exact(clock, at);
    let text = move || match clock.now() {
        None => in_utc(at),
        Some(now) => match at.unix_timestamp() - now {
            ..=0 => passed.to_owned(),
            left @ 1..=3600 => format!("{}:{:02}", left / 60, left % 60),
            left => short_duration(left),
        },
    };
    view! { <time class="relative" datetime=machine(at) title=exact>{text}</time> }.into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_plainly() {
        let at = OffsetDateTime::from_unix_timestamp(1_763_876_460).unwrap();
        assert_eq!(in_utc(at), "23 Nov 2025, 05:41 UTC");
    }
}
