//! Open connections of a port, counted by where they come from, so that no single one takes all that there are.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use policy::net::source_key;

use crate::counted::{Counted, Held};

/// How many connections there may be at a time.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Of one source: an IPv4 address or an IPv6 /64.
    pub source: usize,
    /// Of one IPv6 /48, as one customer has it.
    pub site: usize,
    /// Of all together.
    pub all: usize,
}

/// The open connections of one port.
#[derive(Debug, Clone)]
pub struct Connections {
    sources: Counted<IpNet>,
    sites: Counted<IpNet>,
    all: Counted<()>,
    unbounded: Arc<[IpNet]>,
}

impl Connections {
    /// At most so many at a time. The networks of `unbounded`, proxies of ours, behind which there are many people, are
    /// bounded by the number of all only.
    pub fn new(most: Most, unbounded: &[IpNet]) -> Self {
        Self {
            sources: Counted::new(most.source),
            sites: Counted::new(most.site),
            all: Counted::new(most.all),
            unbounded: unbounded.into(),
        }
    }

    /// A place for one more, as long as what is given is kept; `None` when there is none left for this peer.
    pub fn admit(&self, peer: IpAddr) -> Option<Place> {
        let place = self.all.take(())?;
        let source = source_key(peer);
        if self.unbounded.iter().any(|net| net.contains(&source)) {
            return Some(Place { _all: place, _of_its_own: None });
        }
        let of_its_own = (self.sources.take(source)?, self.sites.take(site_of(source))?);
        Some(Place { _all: place, _of_its_own: Some(of_its_own) })
    }
}

/// One of the connections that there may be.
#[derive(Debug)]
pub struct Place {
    _all: Held<()>,
    _of_its_own: Option<(Held<IpNet>, Held<IpNet>)>,
}

/// The network that one customer of a provider has: of IPv6 a /48.
fn site_of(source: IpNet) -> IpNet {
    match source {
        IpNet::V4(_) => source,
        IpNet::V6(net) => Ipv6Net::new_assert(net.addr(), 48).trunc().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { source: 2, site: 3, all: 5 };

    fn admit(connections: &Connections, peer: &str) -> Option<Place> {
        connections.admit(peer.parse().unwrap())
    }

    #[test]
    fn one_source_has_so_many_and_others_have_theirs() {
        let connections = Connections::new(MOST, &[]);
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
    fn many_sources_of_one_site_are_no_way_around() {
        let connections = Connections::new(MOST, &[]);
        let _three: Vec<_> = (0..3).map(|n| admit(&connections, &format!("2001:db8:7:{n}::1")).unwrap()).collect();
        assert!(admit(&connections, "2001:db8:7:9::1").is_none(), "a /48 is one site");
        assert!(admit(&connections, "2001:db8:8::1").is_some());
    }

    #[test]
    fn all_together_are_bounded_and_who_is_refused_takes_nothing() {
        let connections = Connections::new(MOST, &[]);
        let mut held: Vec<_> = (1..=5).map(|n| admit(&connections, &format!("203.0.113.{n}")).unwrap()).collect();
        assert!(admit(&connections, "203.0.113.6").is_none());
        held.pop();
        held.push(admit(&connections, "203.0.113.1").unwrap());
        held.remove(1);
        for _ in 0..3 {
            assert!(admit(&connections, "203.0.113.1").is_none(), "has its two");
        }
        assert!(admit(&connections, "203.0.113.6").is_some());
    }

    #[test]
    fn a_proxy_of_ours_has_as_many_as_there_are() {
        let connections = Connections::new(MOST, &["10.0.0.0/8".parse().unwrap()]);
        let _places: Vec<_> = (0..5).map(|_| admit(&connections, "10.0.0.1").unwrap()).collect();
        assert!(admit(&connections, "10.0.0.1").is_none());
    }
}
