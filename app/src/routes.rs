//! Which address shows which page.

use leptos::prelude::*;
use leptos::wasm_split::wasm_split;
use leptos_meta::{Title, provide_meta_context};
use leptos_router::components::{ParentRoute, Route, Router, Routes};
use leptos_router::{Lazy, LazyRoute, SsrMode, path};

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
use crate::ui::confirm::{Confirm, ConfirmDialog};
use crate::ui::states::Failed;
use crate::ui::toast::{ToastRegion, Toasts};

/// The whole portal.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    Clock::provide();
    Toasts::provide();
    Confirm::provide();
    Saving::provide();
    Live::provide();
    view! {
        <Title formatter=|title: String| if title.is_empty() { "Ringfence".to_owned() } else { format!("{title} · Ringfence") } />
        <Router>
            <Routes fallback=NotFound>
                <Route path=path!("/login") view=LoginPage ssr=SsrMode::Async />
                <Route path=path!("/login/code") view=CodePage ssr=SsrMode::Async />
                <Route path=path!("/sign-up") view=SignUpPage ssr=SsrMode::Async />
                <Route path=path!("/verify") view=VerifyPage ssr=SsrMode::Async />
                <Route path=path!("/setup") view=SetupPage ssr=SsrMode::Async />
                <Route path=path!("/forgot") view=ForgotPage ssr=SsrMode::Async />
                <Route path=path!("/reset") view=ResetPage ssr=SsrMode::Async />
                <ParentRoute path=path!("") view=Frame ssr=SsrMode::Async>
                    <Route path=path!("/") view=OverviewPage ssr=SsrMode::Async />
                    <Route path=path!("/pbxes") view={Lazy::<Pbxes>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/allowed-ips") view={Lazy::<AllowedIps>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/blocked-ips") view={Lazy::<BlockedIps>::new()} ssr=SsrMode::Async />
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

/// Whether the page at a path is in the part of the program that is fetched when somebody goes to a list. The router takes
/// an address with a slash at its end for the same.
pub(crate) fn is_list(path: &str) -> bool {
    LISTS.contains(&path.trim_end_matches('/'))
}

/// The lists, the larger part of the portal's code, in a file of their own: what everybody waits for first stays small. More
/// files would make all of it larger, since what two of them use goes into further ones and none packs what another has.
macro_rules! lists {
    ($($name:ident = $page:ident at $path:literal),* $(,)?) => {
        const LISTS: &[&str] = &[$($path),*];

        #[derive(Debug, Clone, Copy)]
        enum List {
            $($name,)*
        }

        #[wasm_split(lists, wasm_split_path = ::leptos::wasm_split, preload(fetch_lists), fallible)]
        fn list(list: List) -> Result<AnyView, ApiError> {
            Ok(match list {
                $(List::$name => view! { <$page /> }.into_any(),)*
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
                    let _ = fetch_lists().await;
                }

                async fn view(_: Self) -> AnyView {
                    match list(List::$name).await {
                        Ok(view) => view,
                        // The router has put the address, with what is searched and open in it, into the address bar by the
                        // time that anybody can press.
                        Err(error) => view! { <Failed what="The page" error retry=|()| browser::reload() /> }.into_any(),
                    }
                }
            }
        )*
    };
}

lists! {
    Pbxes = PbxesPage at "/pbxes",
    AllowedIps = AllowedIpsPage at "/allowed-ips",
    BlockedIps = BlockedIpsPage at "/blocked-ips",
    Audit = AuditPage at "/audit",
}

/// Fetches what the page at a path begins with. Taking over the page waits for it, and then does so in one go: with waits
/// within, what pages do once they run would begin while half of them still is as the server sent it.
///
/// # Errors
/// The code could not be fetched.
#[cfg(feature = "hydrate")]
pub async fn fetch_page(path: &str) -> Result<(), leptos::wasm_split::SplitLoaderError> {
    if is_list(path) { fetch_lists().await } else { Ok(()) }
}

/// Fetches the rest, once the first page works.
#[cfg(feature = "hydrate")]
pub async fn fetch_rest() {
    // Without it the page works as well; whoever goes to a list tries again.
    let _ = fetch_lists().await;
}
