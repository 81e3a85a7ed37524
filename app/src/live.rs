//! Live updates: one event stream of the tenant's changes per page. Its events are hints that something changed; what
//! changed is read again through server functions.

use std::time::Duration;

use leptos::prelude::*;
use leptos::task::spawn_local;
use policy::account::Stage;
use policy::ids::TenantId;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{Event, EventSource, MessageEvent};

use crate::{account, browser};

/// What a hint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// Bans.
    BlockedIps,
    /// Allowed entries.
    AllowedIps,
    /// PBXes and what their agents say.
    Pbxes,
    /// The audit log.
    Audit,
    /// Who has access.
    People,
    /// Where people are logged in.
    Sessions,
    /// Attempts and whatever else the overview counts.
    Overview,
    /// How far the newest change is enforced.
    Enforcement,
}

impl Topic {
    const ALL: [(&'static str, Self); 8] = [
        ("blocked_ips", Self::BlockedIps),
        ("allowed_ips", Self::AllowedIps),
        ("pbxes", Self::Pbxes),
        ("audit", Self::Audit),
        ("people", Self::People),
        ("sessions", Self::Sessions),
        ("overview", Self::Overview),
        ("enforcement", Self::Enforcement),
    ];
}

/// Whether hints arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Not asked for yet.
    Idle,
    /// Connected.
    Live,
    /// Cut off, trying again.
    Reconnecting,
}

/// The page's stream of hints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live {
    connection: RwSignal<Connection>,
    counts: [RwSignal<u32>; 8],
    started: StoredValue<bool>,
    /// The tenant that the page shows.
    tenant: StoredValue<Option<TenantId>>,
}

impl Live {
    /// Puts a stream, not yet connected, in the context.
    pub(crate) fn provide() {
        provide_context(Self {
            connection: RwSignal::new(Connection::Idle),
            counts: std::array::from_fn(|_| RwSignal::new(0)),
            started: StoredValue::new(false),
            tenant: StoredValue::new(None),
        });
    }

    /// Whether hints arrive.
    pub(crate) fn connection(self) -> Connection {
        self.connection.get()
    }

    /// Connects, once, for a page that shows this tenant. For effects.
    pub(crate) fn start(self, tenant: Option<TenantId>) {
        if !self.started.get_value() {
            self.started.set_value(true);
            self.tenant.set_value(tenant);
            self.connect();
        }
    }

    /// Runs `action` after hints about any of `topics`, at most once a second. For the set-up of a component.
    pub(crate) fn on_change(self, topics: &'static [Topic], action: impl Fn() + Copy + Send + Sync + 'static) {
        let waiting = StoredValue::new(false);
        let seen = move || self.count(topics);
        Effect::watch(
            seen,
            move |_, _, _| {
                if !waiting.get_value() {
                    waiting.set_value(true);
                    set_timeout(
                        move || {
                            // The component may be gone by now, and its values with it.
                            if waiting.try_set_value(false).is_none() {
                                action();
                            }
                        },
                        Duration::from_millis(700),
                    );
                }
            },
            false,
        );
    }

    fn count(self, topics: &[Topic]) -> u32 {
        let counts = Topic::ALL.iter().zip(self.counts);
        counts.filter(|((_, topic), _)| topics.contains(topic)).map(|(_, count)| count.get()).fold(0, u32::wrapping_add)
    }

    fn connect(self) {
        let Ok(source) = EventSource::new("/live") else { return };
        let hint = Closure::<dyn Fn(MessageEvent)>::new(move |event: MessageEvent| {
            if let Some(text) = event.data().as_string() {
                self.hinted(&text);
            }
        });
        let opened = Closure::<dyn Fn(Event)>::new(move |_| self.opened());
        let failed = Closure::<dyn Fn(Event)>::new({
            let source = source.clone();
            move |_| {
                self.connection.set(Connection::Reconnecting);
                // After an answer that is no stream (the server restarts, the session ended) browsers give up for good.
                if source.ready_state() == EventSource::CLOSED {
                    set_timeout(move || self.connect(), Duration::from_secs(3));
                }
            }
        });
        // The session is over, or the person has no access any more, or it goes on under another id.
        let ended = Closure::<dyn Fn(Event)>::new({
            let source = source.clone();
            move |_| {
                source.close();
                // Until it is there again, hints may be missed.
                self.connection.set(Connection::Reconnecting);
                spawn_local(self.ended());
            }
        });
        let _ = source.add_event_listener_with_callback("change", hint.as_ref().unchecked_ref());
        let _ = source.add_event_listener_with_callback("ended", ended.as_ref().unchecked_ref());
        source.set_onopen(Some(opened.as_ref().unchecked_ref()));
        source.set_onerror(Some(failed.as_ref().unchecked_ref()));
        // The stream lives as long as the page.
        hint.forget();
        ended.forget();
        opened.forget();
        failed.forget();
    }

    fn hinted(self, text: &str) {
        for ((name, _), count) in Topic::ALL.iter().zip(self.counts) {
            if text.contains(&format!("\"{name}\"")) {
                count.update(|count| *count = count.wrapping_add(1));
            }
        }
    }

    /// Hints may have been missed while it was cut off, or since the server rendered the page: everything is read again.
    fn opened(self) {
        if self.connection.get_untracked() != Connection::Live {
            for count in self.counts {
                count.update(|count| *count = count.wrapping_add(1));
            }
        }
        self.connection.set(Connection::Live);
    }

    /// The session of the stream is over: the person has lost it, goes on in another tenant with a new one, or has shown her second factor
    /// again, which gave it a new id; then what she has typed stays where it is.
    async fn ended(self) {
        match account::api::me().await {
            Ok(me) if me.stage != Stage::SignedIn => browser::load_login(),
            Ok(me) if me.current.as_ref().map(|current| current.tenant_id) == self.tenant.get_value() => self.connect(),
            Ok(_) => browser::reload(),
            // The new stream says whether the session is over.
            Err(_) => set_timeout(move || self.connect(), Duration::from_secs(3)),
        }
    }
}

/// Says whether the page is live.
#[component]
pub(crate) fn LiveDot() -> impl IntoView {
    let live = expect_context::<Live>();
    let word = move || match live.connection() {
        Connection::Idle => "connecting",
        Connection::Live => "live",
        Connection::Reconnecting => "reconnecting",
    };
    view! {
        <span class="live-dot" data-state=word role="status">
            <span class="dot" aria-hidden="true"></span>
            {word}
        </span>
    }
}
