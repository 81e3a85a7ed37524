//! The frame of every page of a signed-in person: top bar, navigation, and the page. Loads who one is once; logging in,
//! logging out and switching tenants are full loads, so it never changes under a page.

pub(crate) mod navigation;
pub(crate) mod top_bar;

use leptos::prelude::*;
use leptos_router::components::Outlet;
use policy::account::{Me, Stage};
use policy::authz::{Permission, Role};
use policy::enforcement::Enforcement;

use crate::account::steps;
use crate::error::ApiError;
use crate::frame::navigation::Navigation;
use crate::frame::top_bar::TopBar;
use crate::live::Live;
use crate::load::load;
use crate::look::PeekStored;
use crate::ui::palette::{CommandPalette, Palette};
use crate::ui::states::Failed;
use crate::{account, browser, enforcement};

/// Who is signed in, once that is known; in the context of every page within the frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedIn(StoredValue<Option<Me>>);

impl SignedIn {
    /// The frame's; for the set-up of a component.
    pub(crate) fn of_page() -> Self {
        expect_context()
    }

    /// Asks the server, unless it is known. Part of what each page loads: a page must not wait inside the frame's
    /// `Suspense`, since that renders twice on the server and would load twice.
    pub(crate) async fn ask(self) -> Option<Me> {
        match self.0.try_get_value().flatten() {
            Some(me) => Some(me),
            None => account::api::me().await.ok(),
        }
    }

    /// Takes the answer.
    pub(crate) fn learn(self, me: Option<Me>) {
        self.0.set_value(me);
    }

    /// Whether the page may show what needs this permission.
    pub(crate) fn may(self, permission: Permission) -> bool {
        self.0.peek_stored(|me| me.as_ref().is_some_and(|me| me.may(permission)))
    }

    /// The person's e-mail address, and what she is in this tenant.
    pub(crate) fn person(self) -> Option<(String, Role)> {
        self.0.peek_stored(|me| me.as_ref().and_then(|me| Some((me.email.clone(), me.current.as_ref()?.role))))
    }

    /// The address that the person comes from.
    pub(crate) fn address(self) -> String {
        self.0.peek_stored(|me| me.as_ref().map(|me| me.address.clone()).unwrap_or_default())
    }
}

/// The frame; the page is its outlet. The outlet is outside of what waits for the session: inside, the server would build
/// the page several times, and the browser could not tell which data is which.
#[component]
pub(crate) fn Frame() -> impl IntoView {
    provide_context(SignedIn(StoredValue::new(None)));
    provide_context(Palette(RwSignal::new(false)));
    let session = load(|| (), |()| session());
    let drawer = RwSignal::new(false);
    view! {
        <a class="skip-link" href="#main" rel="external">"Skip to the page"</a>
        <div class="frame" class:drawer-open=move || drawer.get()>
            <Suspense fallback=|| view! { <header class="top-bar"></header> }>
                {move || Suspend::new(async move {
                    match session.await {
                        Ok((me, enforcement)) if me.stage == Stage::SignedIn => {
                            view! { <Surroundings me enforcement drawer /> }.into_any()
                        }
                        Ok((me, _)) => view! { <ElsewhereFirst stage=me.stage /> }.into_any(),
                        Err(ApiError::SignedOut) => view! { <ElsewhereFirst stage=Stage::SignedOut /> }.into_any(),
                        Err(error) => view! { <Failed what="Ringfence" error retry=|()| browser::reload() /> }.into_any(),
                    }
                })}
            </Suspense>
            <main id="main" class="page" tabindex="-1">
                <Outlet />
            </main>
        </div>
    }
}

async fn session() -> Result<(Me, Option<Enforcement>), ApiError> {
    let me = account::api::me().await?;
    let enforcement = match me.stage {
        Stage::SignedIn => enforcement::api::show().await.ok(),
        Stage::SignedOut | Stage::NeedsCode | Stage::NeedsTotpSetup => None,
    };
    Ok((me, enforcement))
}

/// Sends whoever isn't signed in to the step that is missing. The server's gate does the same before any page is
/// rendered; this is for a session that ended while a page was open.
#[component]
fn ElsewhereFirst(stage: Stage) -> impl IntoView {
    Effect::new(move || match stage {
        Stage::SignedOut => browser::load_login(),
        Stage::NeedsCode | Stage::NeedsTotpSetup | Stage::SignedIn => browser::load(steps::page_of(stage)),
    });
    view! {
        <header class="top-bar">
            <p>"Log in to see this page. " <a href=steps::page_of(stage) rel="external">"Go on"</a></p>
        </header>
    }
}

#[component]
fn Surroundings(me: Me, enforcement: Option<Enforcement>, drawer: RwSignal<bool>) -> impl IntoView {
    SignedIn::of_page().learn(Some(me.clone()));
    let tenant = me.current.as_ref().map(|current| current.tenant_id);
    let me = StoredValue::new(me);
    let live = expect_context::<Live>();
    Effect::new(move || live.start(tenant));
    view! {
        <TopBar me enforcement drawer />
        <Navigation me drawer />
        <CommandPalette me />
    }
}
