//! Addresses of allowed domain names and of the server: asked again when their time to live runs out. While nobody answers, the last
//! good answer counts, also after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

/// What each name resolves to.
pub type Answers = BTreeMap<String, BTreeSet<IpAddr>>;

/// An answer is asked for again no sooner and no later than this, whatever its time to live.
const SHORTEST: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_hours(1);
/// After no answer.
const RETRY: Duration = Duration::from_secs(20);
/// Most addresses of a name that are taken.
const ADDRESSES_MAX: usize = 64;

/// Keeps `answers` true for the names in `wanted`, until nobody wants any.
pub async fn run(mut wanted: watch::Receiver<BTreeSet<String>>, answers: watch::Sender<Answers>) {
    let resolver = resolver();
    let mut due: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let names = wanted.borrow_and_update().clone();
        due.retain(|name, _| names.contains(name));
        for name in names {
            due.entry(name).or_insert_with(Instant::now);
        }
        let now = Instant::now();
        for (name, when) in due.iter_mut().filter(|(_, when)| **when <= now) {
            *when = Instant::now() + ask(resolver.as_ref(), name, &answers).await;
        }
        let next = due.values().min().copied().unwrap_or_else(|| now + LONGEST);
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

fn resolver() -> Option<TokioResolver> {
    let built = TokioResolver::builder_tokio().and_then(|mut builder| {
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = Duration::from_secs(3);
        builder.build()
    });
    built.map_err(|error| warn!(%error, "Domain names can't be resolved on this machine; allowed names stay at their last answer")).ok()
}

/// Asks for one name; when to ask again.
async fn ask(resolver: Option<&TokioResolver>, name: &str, answers: &watch::Sender<Answers>) -> Duration {
    let (found, again) = if let Ok(addr) = name.parse::<IpAddr>() {
        (BTreeSet::from([addr]), LONGEST)
    } else {
        let Some(resolver) = resolver else { return LONGEST };
        match resolver.lookup_ip(name).await {
            Ok(found) => {
                let left = Instant::from_std(found.valid_until()).saturating_duration_since(Instant::now());
                (
                    found.iter().take(ADDRESSES_MAX).map(|addr| addr.to_canonical()).collect(),
                    left.clamp(SHORTEST, LONGEST),
                )
            }
            Err(error) => {
                debug!(%error, name, "A name doesn't resolve; its last answer counts");
                return RETRY;
            }
        }
    };
    answers.send_if_modified(|answers| match answers.get(name) {
        Some(known) if *known == found => false,
        _ => {
            answers.insert(name.to_owned(), found);
            true
        }
    });
    again
}
