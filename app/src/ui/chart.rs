//! The 24-hour chart: attempts as an area, blocked addresses as bars below it, since the two differ by orders of
//! magnitude. Drawn as SVG by the server; read by pointer, by arrow keys, and as a table by screen readers.

use leptos::prelude::*;
use policy::overview::HourCount;
use time::OffsetDateTime;

use crate::clock::{Clock, local_hour};
use crate::look::{Look, Peek};
use crate::ui::page_header::{counted, grouped};

/// Width of one hour, and the bands of the drawing, in its own units.
const STEP: usize = 20;
const AREA_BOTTOM: i64 = 120;
const BARS_BOTTOM: i64 = 172;
const BARS_HEIGHT: i64 = 40;

/// Attempts and blocked addresses of the last 24 hours.
#[component]
pub(crate) fn HoursChart(
    /// One entry per hour, oldest first.
    #[prop(into)]
    hours: Signal<Vec<HourCount>>,
) -> impl IntoView {
    let clock = expect_context::<Clock>();
    let at = RwSignal::new(None::<usize>);
    let read_out = move || {
        hours.look(|hours| match at.get().and_then(|at| hours.get(at)) {
            Some(hour) => (format!("From {}", hour_name(clock, hour.hour)), hour.attempts, hour.bans),
            None => (
                "Last 24 hours".to_owned(),
                hours.iter().map(|hour| hour.attempts).sum(),
                hours.iter().map(|hour| hour.bans).sum(),
            ),
        })
    };
    let nothing = Memo::new(move |_| hours.look(|hours| hours.iter().all(|hour| hour.attempts == 0 && hour.bans == 0)));
    let step = move |event: web_sys::KeyboardEvent| {
        let last = hours.peek(Vec::len).saturating_sub(1);
        let next = match event.key().as_str() {
            "ArrowLeft" => Some(at.get_untracked().map_or(last, |at| at.saturating_sub(1))),
            "ArrowRight" => Some(at.get_untracked().map_or(0, |at| (at + 1).min(last))),
            "Home" => Some(0),
            "End" => Some(last),
            "Escape" => None,
            _ => return,
        };
        event.prevent_default();
        at.set(next);
    };
    view! {
        <div
            class="chart"
            tabindex="0"
            role="group"
            aria-label="Attempts and blocked addresses of the last 24 hours. Arrow keys read hour by hour."
            on:keydown=step
            on:blur=move |_| at.set(None)
            on:pointerleave=move |_| at.set(None)
        >
            <p class="chart-readout" aria-live="polite">
                <span class="chart-when">{move || read_out().0}</span>
                <span class="chart-key attempts">{move || counted(read_out().1, "attempt", "attempts")}</span>
                <span class="chart-key bans">{move || format!("{} blocked", grouped(read_out().2))}</span>
            </p>
            <p class="box-empty" hidden=move || !nothing.get()>"Nobody tried anything in the last 24 hours."</p>
            <div class="chart-plot" hidden=move || nothing.get()>
                <div class="chart-scale" aria-hidden="true">
                    <span>{move || hours.look(|hours| grouped(top(hours, |hour| hour.attempts)))}</span>
                    <span class="chart-scale-bans">{move || hours.look(|hours| grouped(top(hours, |hour| hour.bans)))}</span>
                </div>
                <Drawing hours at />
            </div>
            <div class="chart-hours" aria-hidden="true" hidden=move || nothing.get()>
                {[0, 6, 12, 18, 23]
                    .map(|index| {
                        let name = move || hours.look(|hours| hours.get(index).map(|hour| hour_name(clock, hour.hour)));
                        view! { <span>{name}</span> }
                    })
                    .into_iter()
                    .collect_view()}
            </div>
            <HoursTable hours />
        </div>
    }
}

#[component]
fn Drawing(hours: Signal<Vec<HourCount>>, at: RwSignal<Option<usize>>) -> impl IntoView {
    let strips = move || {
        let strip = |index: usize| {
            view! {
                <rect class="chart-strip" x=index * STEP y="0" width=STEP height="176" on:pointerenter=move |_| at.set(Some(index)) />
            }
        };
        (0..hours.look(Vec::len)).map(strip).collect_view()
    };
    view! {
        <svg class="chart-drawing" viewBox="0 0 480 176" preserveAspectRatio="none" aria-hidden="true" focusable="false">
            <path class="chart-grid" d="M0 1H480M0 60H480M0 120H480M0 172H480" />
            <path class="chart-area" d=move || hours.look(|hours| area(hours, true)) />
            <path class="chart-line" d=move || hours.look(|hours| area(hours, false)) />
            <path class="chart-bars" d=move || hours.look(|hours| bars(hours)) />
            {move || at.get().map(|at| view! { <rect class="chart-cursor" x=at * STEP y="0" width=STEP height="176" /> })}
            {strips}
        </svg>
    }
}

#[component]
fn HoursTable(hours: Signal<Vec<HourCount>>) -> impl IntoView {
    let clock = expect_context::<Clock>();
    let rows = move || {
        let row = move |hour: HourCount| {
            view! {
                <tr>
                    <th scope="row">{move || hour_name(clock, hour.hour)}</th>
                    <td>{hour.attempts}</td>
                    <td>{hour.bans}</td>
                </tr>
            }
        };
        hours.get().into_iter().map(row).collect_view()
    };
    view! {
        // A table grows over whatever height it is given, and what is hidden would lengthen the page.
        <div class="visually-hidden">
            <table>
                <caption>"Attempts and blocked addresses by hour"</caption>
                <thead>
                    <tr>
                        <th scope="col">"Hour"</th>
                        <th scope="col">"Attempts"</th>
                        <th scope="col">"Blocked"</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

fn hour_name(clock: Clock, hour: OffsetDateTime) -> String {
    if clock.ticking() { local_hour(hour) } else { format!("{:02}:00", hour.hour()) }
}

/// The top of the scale: the next 1, 2 or 5 times a power of ten, at least 5.
fn top(hours: &[HourCount], count: impl Fn(&HourCount) -> i64) -> i64 {
    let most = hours.iter().map(count).max().unwrap_or(0);
    let mut step = 1i64;
    loop {
        for top in [step.saturating_mul(5), step.saturating_mul(10), step.saturating_mul(20)] {
            if top >= most {
                return top;
            }
        }
        step = step.saturating_mul(10);
    }
}

/// The line through the middle of each hour; closed down to the base for the area below it.
fn area(hours: &[HourCount], closed: bool) -> String {
    let top = top(hours, |hour| hour.attempts);
    let height = |hour: &HourCount| AREA_BOTTOM - scaled(hour.attempts, top, AREA_BOTTOM - 2);
    let Some(first) = hours.first() else { return String::new() };
    let points = hours.iter().enumerate().map(|(index, hour)| format!("L{} {}", index * STEP + STEP / 2, height(hour)));
    let line = points.fold(format!("M0 {}", height(first)), |line, point| line + &point);
    let end = hours.len() * STEP;
    if closed { format!("{line}H{end}V{AREA_BOTTOM}H0Z") } else { format!("{line}H{end}") }
}

fn bars(hours: &[HourCount]) -> String {
    let top = top(hours, |hour| hour.bans);
    let drawn = hours.iter().enumerate().filter(|(_, hour)| hour.bans > 0);
    drawn.fold(String::new(), |path, (index, hour)| {
        // A single ban must be seen even beside a thousand.
        let height = scaled(hour.bans, top, BARS_HEIGHT).max(3);
        path + &format!("M{} {BARS_BOTTOM}v-{height}h{}v{height}z", index * STEP + 4, STEP - 8)
    })
}

fn scaled(count: i64, top: i64, height: i64) -> i64 {
    count.saturating_mul(height).checked_div(top).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(attempts: &[i64]) -> Vec<HourCount> {
        attempts.iter().map(|&attempts| HourCount { hour: OffsetDateTime::UNIX_EPOCH, attempts, bans: 0 }).collect()
    }

    #[test]
    fn the_scale_ends_at_a_round_number_above_the_most() {
        for (most, expected) in [(0, 5), (5, 5), (6, 10), (11, 20), (21, 50), (312, 500), (999_999, 1_000_000)] {
            assert_eq!(top(&hours(&[1, most]), |hour| hour.attempts), expected, "{most}");
        }
    }

    #[test]
    fn the_area_stays_inside_its_band() {
        assert_eq!(area(&hours(&[0, 5]), true), "M0 120L10 120L30 2H40V120H0Z");
        assert_eq!(area(&[], true), "");
    }
}
