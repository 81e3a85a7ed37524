//! Which address shows which page.

use leptos::prelude::*;
use leptos::wasm_split::wasm_split;
use leptos_meta::{Title, provide_meta_context};
use leptos_router::components::{ParentRoute, Route, Router, Routes};
use leptos_router::{Lazy, LazyRoute, SsrMode, path};

use crate::account::invitation::InvitationPage;
use crate::account::login::{CodePage, LoginPage};
use crate::account::reset::{ForgotPage, ResetPage};
use crate::account::setup::SetupPage;
use crate::account::sign_up::{SignUpPage, VerifyPage};
use crate::allowed_ips::page::AllowedIpsPage;
use crate::audit::page::AuditPage;
use crate::blocked_ips::page::BlockedIpsPage;
use crate::browser;
use crate::clock::Clock;
use crate::enforcement::pill::Saving;
use crate::error::ApiError;
use crate::frame::Frame;
use crate::live::Live;
use crate::overview::page::OverviewPage;
use crate::pbxes::page::PbxesPage;
use crate::people::page::PeoplePage;
use crate::sessions::page::SessionsPage;
use crate::ui::confirm::{Confirm, ConfirmDialog};
use crate::ui::states::Failed;
use crate::ui::step_up::StepUp;
use crate::ui::toast::{ToastRegion, Toasts};

/// The whole portal.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    Clock::provide();
    Toasts::provide();
    Confirm::provide();
    StepUp::provide();
    Saving::provide();
    Live::provide();
    view! {
        <Title formatter=|title: String| if title.is_empty() { "Ringfence".to_owned() } else { format!("{title} · Ringfence") } />
        <Router>
            <Routes fallback=NotFound>
                <Route path=path!("/login") view={Lazy::<Login>::new()} ssr=SsrMode::Async />
                <Route path=path!("/login/code") view={Lazy::<Code>::new()} ssr=SsrMode::Async />
                <Route path=path!("/sign-up") view={Lazy::<SignUp>::new()} ssr=SsrMode::Async />
                <Route path=path!("/verify") view={Lazy::<Verify>::new()} ssr=SsrMode::Async />
                <Route path=path!("/setup") view={Lazy::<Setup>::new()} ssr=SsrMode::Async />
                <Route path=path!("/forgot") view={Lazy::<Forgot>::new()} ssr=SsrMode::Async />
                <Route path=path!("/reset") view={Lazy::<Reset>::new()} ssr=SsrMode::Async />
                <Route path=path!("/invitation") view={Lazy::<Invitation>::new()} ssr=SsrMode::Async />
                <ParentRoute path=path!("") view=Frame ssr=SsrMode::Async>
                    <Route path=path!("/") view={Lazy::<Overview>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/pbxes") view={Lazy::<Pbxes>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/allowed-ips") view={Lazy::<AllowedIps>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/blocked-ips") view={Lazy::<BlockedIps>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/people") view={Lazy::<People>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/sessions") view={Lazy::<Sessions>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/audit") view={Lazy::<Audit>::new()} ssr=SsrMode::Async />
                </ParentRoute>
            </Routes>
        </Router>
        <ConfirmDialog />
        <ToastRegion />
    }
}

#[component]
fn NotFound() -> impl IntoView {
    view! {
        <Title text="Not found" />
        <main class="alone">
            <div class="card">
                <h1>"There is nothing here"</h1>
                <p class="card-text">"The address may be mistyped, or what it showed is gone."</p>
                <a class="button primary wide" href="/" rel="external">"Go to the overview"</a>
            </div>
        </main>
    }
}

/// The pages in pieces, each a file of the browser's program: whoever opens a page first waits for what all pages share and
/// for its piece alone.
macro_rules! pieces {
    ($($piece:ident ($fetch:ident): { $($name:ident = $page:ident at $path:literal),* $(,)? })*) => {
        /// Where which page is, and in which piece.
        const PAGES: &[(&str, &str)] = &[$($(($path, stringify!($piece))),*),*];

        $(
            #[wasm_split($piece, wasm_split_path = ::leptos::wasm_split, preload($fetch), fallible)]
            fn $piece(path: &'static str) -> Result<AnyView, ApiError> {
                Ok(match path {
                    $($path => view! { <$page /> }.into_any(),)*
                    _ => ().into_any(),
                })
            }

            $(
                #[derive(Debug)]
                struct $name;

                impl LazyRoute for $name {
                    fn data() -> Self {
                        Self
                    }

                    /// The old page stays until the code of the new one is there, or can't be had.
                    async fn preload() {
                        let _ = $fetch().await;
                    }

                    async fn view(_: Self) -> AnyView {
                        shown($piece($path).await)
                    }
                }
            )*
        )*

        /// Fetches what the page at a path begins with. Taking over the page waits for it, and then does so in one go: with
        /// waits within, what pages do once they run would begin while half of them still is as the server sent it.
        ///
        /// # Errors
        /// The code could not be fetched.
        #[cfg(feature = "hydrate")]
        pub async fn fetch_page(path: &str) -> Result<(), leptos::wasm_split::SplitLoaderError> {
            match piece_of(path) {
                $(Some(piece) if piece == stringify!($piece) => $fetch().await,)*
                _ => Ok(()),
            }
        }

        /// Fetches the rest, once the first page works.
        #[cfg(feature = "hydrate")]
        pub async fn fetch_rest() {
            // Without it the page works as well; whoever goes elsewhere tries again.
            $(let _ = $fetch().await;)*
        }
    };
}

pieces! {
    account (fetch_account): {
        Login = LoginPage at "/login",
        Code = CodePage at "/login/code",
        SignUp = SignUpPage at "/sign-up",
        Verify = VerifyPage at "/verify",
        Setup = SetupPage at "/setup",
        Forgot = ForgotPage at "/forgot",
        Reset = ResetPage at "/reset",
        Invitation = InvitationPage at "/invitation",
    }
    overview (fetch_overview): { Overview = OverviewPage at "/" }
    pbxes (fetch_pbxes): { Pbxes = PbxesPage at "/pbxes" }
    allowed_ips (fetch_allowed_ips): { AllowedIps = AllowedIpsPage at "/allowed-ips" }
    blocked_ips (fetch_blocked_ips): { BlockedIps = BlockedIpsPage at "/blocked-ips" }
    people (fetch_people): { People = PeoplePage at "/people" }
    sessions (fetch_sessions): { Sessions = SessionsPage at "/sessions" }
    audit (fetch_audit): { Audit = AuditPage at "/audit" }
}

/// The piece of the page at a path. The router takes an address with a slash at its end for the same.
pub(crate) fn piece_of(path: &str) -> Option<&'static str> {
    let same = |page: &str| page.trim_end_matches('/') == path.trim_end_matches('/');
    PAGES.iter().find(|(page, _)| same(page)).map(|(_, piece)| *piece)
}

/// A page, or why its code could not be had. The router has put the address, with what is searched and open in it, into the
/// address bar by the time that anybody can press.
fn shown(page: Result<AnyView, ApiError>) -> AnyView {
    page.unwrap_or_else(|error| view! { <Failed what="The page" error retry=|()| browser::reload() /> }.into_any())
}
