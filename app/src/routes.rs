//! Which address shows which page.

use leptos::prelude::*;
use leptos_meta::{Title, provide_meta_context};
use leptos_router::components::{ParentRoute, Route, Router, Routes};
use leptos_router::{SsrMode, path};

use crate::account::login::{CodePage, LoginPage};
use crate::account::reset::{ForgotPage, ResetPage};
use crate::account::setup::SetupPage;
use crate::account::sign_up::{SignUpPage, VerifyPage};
use crate::allowed_ips::page::AllowedIpsPage;
use crate::audit::page::AuditPage;
use crate::blocked_ips::page::BlockedIpsPage;
use crate::clock::Clock;
use crate::enforcement::pill::Saving;
use crate::frame::Frame;
use crate::live::Live;
use crate::overview::page::OverviewPage;
use crate::pbxes::page::PbxesPage;
use crate::ui::confirm::{Confirm, ConfirmDialog};
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
                <Route path=path!("/login") view=|| view! { <LoginPage /> }.into_any() ssr=SsrMode::Async />
                <Route path=path!("/login/code") view=|| view! { <CodePage /> }.into_any() ssr=SsrMode::Async />
                <Route path=path!("/sign-up") view=|| view! { <SignUpPage /> }.into_any() ssr=SsrMode::Async />
                <Route path=path!("/verify") view=|| view! { <VerifyPage /> }.into_any() ssr=SsrMode::Async />
                <Route path=path!("/setup") view=|| view! { <SetupPage /> }.into_any() ssr=SsrMode::Async />
                <Route path=path!("/forgot") view=|| view! { <ForgotPage /> }.into_any() ssr=SsrMode::Async />
                <Route path=path!("/reset") view=|| view! { <ResetPage /> }.into_any() ssr=SsrMode::Async />
                <ParentRoute path=path!("") view=|| view! { <Frame /> }.into_any() ssr=SsrMode::Async>
                    <Route path=path!("/") view=|| view! { <OverviewPage /> }.into_any() ssr=SsrMode::Async />
                    <Route path=path!("/pbxes") view=|| view! { <PbxesPage /> }.into_any() ssr=SsrMode::Async />
                    <Route path=path!("/allowed-ips") view=|| view! { <AllowedIpsPage /> }.into_any() ssr=SsrMode::Async />
                    <Route path=path!("/blocked-ips") view=|| view! { <BlockedIpsPage /> }.into_any() ssr=SsrMode::Async />
                    <Route path=path!("/audit") view=|| view! { <AuditPage /> }.into_any() ssr=SsrMode::Async />
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
                <a class="button primary wide" href="/">"Go to the overview"</a>
            </div>
        </main>
    }
}
