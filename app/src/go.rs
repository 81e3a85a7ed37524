//! Going to other addresses of the portal without a full load.

use leptos::prelude::*;
use leptos_router::NavigateOptions;
use leptos_router::hooks::use_navigate;

/// The value of `add`, `allow` or `block` in an address that only opens a form, with nothing to put in it.
pub(crate) const OPEN: &str = "1";

/// Goes to addresses; for event handlers and effects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Go(Callback<(String, bool)>);

impl Go {
    /// The router's; for the set-up of a component.
    pub(crate) fn of_page() -> Self {
        let navigate = use_navigate();
        Self(Callback::new(move |(href, replace): (String, bool)| {
            navigate(&href, NavigateOptions { replace, scroll: false, ..NavigateOptions::default() });
        }))
    }

    /// Goes there; Back comes back.
    pub(crate) fn to(self, href: String) {
        self.0.run((href, false));
    }

    /// Changes the address of where one is.
    pub(crate) fn replace(self, href: String) {
        self.0.run((href, true));
    }
}
