//! Open connections counted by source, so that no single one takes all that there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use policy::net::source_key;

/// The open connections of one port.
#[derive(Debug, Clone)]
pub struct Connections {
    open: Arc<Mutex<HashMap<IpNet, usize>>>,
    most: usize,
    unbounded: Arc<[IpNet]>,
}

impl Connections {
    /// At most `most` at a time for each source, except for the networks of `unbounded`: proxies of ours, behind which
    /// there are many.
    pub fn new(most: usize, unbounded: &[IpNet]) -> Self {
        Self { open: Arc::default(), most, unbounded: unbounded.into() }
    }

    /// A place for one more, as long as what is given is kept; `None` when the source has all that it may have.
    pub fn admit(&self, peer: IpAddr) -> Option<Place> {
        let source = source_key(peer);
        let bounded = !self.unbounded.iter().any(|net| net.contains(&source));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_default();
        if bounded && *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { source, open: Arc::clone(&self.open) })
    }
}

/// One of a source's connections.
#[derive(Debug)]
pub struct Place {
    source: IpNet,
    open: Arc<Mutex<HashMap<IpNet, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(connections: &Connections, peer: &str) -> Option<Place> {
        connections.admit(peer.parse().unwrap())
    }

    #[test]
    fn one_source_has_so_many_and_others_have_theirs() {
        let connections = Connections::new(2, &[]);
        let first = admit(&connections, "203.0.113.9").unwrap();
        let _second = admit(&connections, "::ffff:203.0.113.9").unwrap();
        assert!(admit(&connections, "203.0.113.9").is_none());
        assert!(admit(&connections, "203.0.113.10").is_some());
        drop(first);
        let _again = admit(&connections, "203.0.113.9").unwrap();
        let _other = [admit(&connections, "2001:db8::1").unwrap(), admit(&connections, "2001:db8::2").unwrap()];
        assert!(admit(&connections, "2001:db8::3").is_none(), "a /64 is one source");
    }

    #[test]
    fn nothing_is_kept_of_who_has_left() {
        let connections = Connections::new(1, &[]);
        drop(admit(&connections, "203.0.113.9"));
        assert!(connections.open.lock().unwrap().is_empty());
    }

    #[test]
    fn a_proxy_of_ours_is_not_counted_out() {
        let connections = Connections::new(1, &["10.0.0.0/8".parse().unwrap()]);
        let places: Vec<_> = (0..5).map(|_| admit(&connections, "10.0.0.1").unwrap()).collect();
        assert_eq!(places.len(), 5);
    }
}
