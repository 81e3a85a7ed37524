//! The enforcement pill: follows each change from "Saving" to "Enforced on 2 of 2". Never says "saved" where "enforced"
//! is meant.

use leptos::prelude::*;
use leptos::task::spawn_local;
use policy::enforcement::Enforcement;

use crate::enforcement::api;
use crate::live::{Live, Topic};
use crate::look::Look;
use crate::ui::icon::{Glyph, Icon};

/// How many changes of this page are on their way to the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saving(RwSignal<u32>);

impl Saving {
    /// Puts it in the context.
    pub(crate) fn provide() {
        provide_context(Self(RwSignal::new(0)));
    }

    /// A change sets out.
    pub(crate) fn begin(self) {
        self.0.update(|count| *count += 1);
    }

    /// It was answered.
    pub(crate) fn end(self) {
        self.0.update(|count| *count = count.saturating_sub(1));
    }
}

/// The pill and, before it, how many PBXes are online.
#[component]
pub(crate) fn EnforcementPill(
    /// What the page came with.
    first: Option<Enforcement>,
) -> impl IntoView {
    let Saving(saving) = expect_context();
    let live = expect_context::<Live>();
    let enforcement = RwSignal::new(first);
    let refresh = move || {
        spawn_local(async move {
            if let Ok(newest) = api::show().await {
                let _ = enforcement.try_set(Some(newest));
            }
        });
    };
    live.on_change(&[Topic::Enforcement, Topic::Pbxes], refresh);
    Effect::watch(
        move || saving.get(),
        move |now, before, _| {
            if *now == 0 && before.is_some_and(|before| *before > 0) {
                refresh();
            }
        },
        false,
    );
    let online = move || {
        enforcement.look(|enforcement| match enforcement {
            Some(Enforcement { of: 0, .. }) | None => String::new(),
            Some(Enforcement { of, online, .. }) => {
                format!("{online} of {of} {} online", if *of == 1 { "PBX" } else { "PBXes" })
            }
        })
    };
    let all_online =
        move || enforcement.look(|enforcement| enforcement.as_ref().is_none_or(|sum| sum.online == sum.of));
    let shown = Memo::new(move |_| enforcement.look(|enforcement| Shown::of(saving.get(), enforcement.as_ref())));
    view! {
        <a class="online" href="/pbxes" data-all=move || all_online().to_string() hidden=move || online().is_empty()>
            <span class="dot" aria-hidden="true"></span>
            {online}
        </a>
        <a
            class="pill"
            href="/pbxes"
            data-tone=move || shown.look(|shown| shown.tone)
            title=move || shown.look(|shown| shown.more.clone())
        >
            {move || view! { <Icon glyph=shown.look(|shown| shown.glyph) /> }}
            <span role="status" aria-live="polite">{move || shown.look(|shown| shown.text.clone())}</span>
        </a>
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    tone: &'static str,
    glyph: Glyph,
    text: String,
    more: String,
}

impl Shown {
    fn new(tone: &'static str, glyph: Glyph, text: impl Into<String>, more: impl Into<String>) -> Self {
        Self { tone, glyph, text: text.into(), more: more.into() }
    }

    fn of(saving: u32, enforcement: Option<&Enforcement>) -> Self {
        if saving > 0 {
            return Self::new("busy", Glyph::Clock, "Saving", "");
        }
        let Some(sum) = enforcement else {
            return Self::new("warn", Glyph::Warning, "Unknown", "Whether changes are enforced could not be read.");
        };
        let more = format!("Revision {}, ban change {}", sum.revision, sum.ban_seq);
        let Enforcement { of, enforced, online, took_ms, .. } = sum;
        if let Some((name, why)) = sum.refused.first() {
            return Self::new("bad", Glyph::Alert, format!("{name} refused: {why}"), more);
        }
        if *of == 0 {
            return Self::new("idle", Glyph::Unplug, "No PBX connected", "Nothing is enforced yet.");
        }
        if enforced == of && sum.simulated.is_empty() {
            return Self::new("good", Glyph::Proven, format!("Enforced on {enforced} of {of}, {took_ms} ms"), more);
        }
        if enforced == of {
            let names = sum.simulated.join(", ");
            let more = format!("{more}. Without a firewall, nothing is dropped there: {names}");
            return Self::new(
                "warn",
                Glyph::Warning,
                format!("Simulated on {} of {of}, {took_ms} ms", sum.simulated.len()),
                more,
            );
        }
        if online > enforced {
            let pbxes = if *online == 1 { "PBX" } else { "PBXes" };
            return Self::new(
                "busy",
                Glyph::Clock,
                format!("Sent to {online} {pbxes}"),
                format!("{more}. Waiting for {}", sum.behind.join(", ")),
            );
        }
        let names = sum.behind.join(", ");
        Self::new("warn", Glyph::Warning, format!("Enforced on {enforced} of {of}; waiting for {names}"), more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(saving: u32, sum: &Enforcement) -> String {
        Shown::of(saving, Some(sum)).text
    }

    #[test]
    fn the_pill_follows_a_change() {
        let mut sum = Enforcement { of: 2, online: 2, enforced: 2, took_ms: 38, ..Enforcement::default() };
        assert_eq!(text(1, &sum), "Saving");
        assert_eq!(text(0, &sum), "Enforced on 2 of 2, 38 ms");
        sum.enforced = 0;
        sum.behind = vec!["hq".to_owned(), "branch".to_owned()];
        assert_eq!(text(0, &sum), "Sent to 2 PBXes");
        (sum.online, sum.enforced, sum.behind) = (1, 1, vec!["branch".to_owned()]);
        assert_eq!(text(0, &sum), "Enforced on 1 of 2; waiting for branch");
        sum.refused = vec![("hq".to_owned(), "too many entries".to_owned())];
        assert_eq!(text(0, &sum), "hq refused: too many entries");
        assert_eq!(text(0, &Enforcement::default()), "No PBX connected");
    }

    #[test]
    fn what_is_not_dropped_is_never_called_enforced() {
        let sum = Enforcement {
            of: 1,
            online: 1,
            enforced: 1,
            took_ms: 1,
            simulated: vec!["demo".to_owned()],
            ..Enforcement::default()
        };
        assert_eq!(text(0, &sum), "Simulated on 1 of 1, 1 ms");
    }
}
