//! What each role may, in plain words.

use leptos::prelude::*;
use policy::authz::{Permission, Role};

use crate::ui::icon::{Glyph, Icon};

/// Role × permission.
#[component]
pub(crate) fn Roles() -> impl IntoView {
    let heads = Role::ALL.map(|role| view! { <th scope="col">{role.title()}</th> }).collect_view();
    let rows = Permission::ALL
        .map(|permission| {
            let cells = Role::ALL.map(|role| cell(role.may(permission))).collect_view();
            view! { <tr><th scope="row">{permission.describe()}</th>{cells}</tr> }
        })
        .collect_view();
    view! {
        <section class="box roles" aria-labelledby="roles-title">
            <h2 id="roles-title">"What each role may"</h2>
            <p>"Administrators manage everybody but Super administrators. Of those there is always at least one."</p>
            <div class="roles-table" tabindex="0" role="group" aria-label="Table of roles">
                <table>
                    <thead><tr><td></td>{heads}</tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </section>
    }
}

fn cell(may: bool) -> impl IntoView {
    if may {
        view! { <td class="may"><Icon glyph=Glyph::Check /><span class="visually-hidden">"yes"</span></td> }.into_any()
    } else {
        view! { <td><span aria-hidden="true">"–"</span><span class="visually-hidden">"no"</span></td> }.into_any()
    }
}
