//! Addresses and networks as administrators type them: parsed once at the edge, kept canonical.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Parses an IPv4 or IPv6 address or a CIDR network. The result is canonical: host bits are cleared, an IPv4-mapped
/// IPv6 address (RFC 4291 §2.5.5.2) is the IPv4 address that it stands for.
///
/// # Errors
/// The sentence to show next to the field.
pub fn parse_net(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("Enter an address such as 203.0.113.9, or a network such as 203.0.113.0/24.".to_owned());
    }
    if text.len() > 64 {
        return Err("This is too long for an address. Enter one address or network, such as 203.0.113.0/24.".to_owned());
    }
    let net = match text.split_once('/') {
        None => IpNet::from(parse_addr(text)?),
        Some((addr, length)) => {
            let addr = parse_addr_raw(addr)?;
            let most = if addr.is_ipv4() { 32 } else { 128 };
            let length =
                length.parse::<u8>().ok().filter(|length| *length <= most && !text.contains("/+")).ok_or_else(
                    || format!("The part after the slash is a prefix length from 1 to {most}, such as /24."),
                )?;
            IpNet::new(addr, length).map_err(|_| format!("The prefix length is at most {most}."))?
        }
    };
    Ok(canonical(net))
}

/// Parses a single address; IPv4-mapped IPv6 becomes IPv4.
///
/// # Errors
/// The sentence to show next to the field.
pub fn parse_addr(text: &str) -> Result<IpAddr, String> {
    parse_addr_raw(text).map(|addr| addr.to_canonical())
}

fn parse_addr_raw(text: &str) -> Result<IpAddr, String> {
    text.trim().parse().map_err(|_| {
        format!("“{}” is not an IPv4 or IPv6 address. Enter one such as 203.0.113.9 or 2001:db8::9.", shorten(text))
    })
}

/// Clears host bits and turns IPv4-mapped IPv6 networks of /96 and longer into IPv4.
pub fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(v4, v6.prefix_len() - 96)
    {
        return IpNet::V4(v4.trunc());
    }
    net.trunc()
}

/// Whether the network is one single address.
pub fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// The network in the form people write: a single address without its prefix length.
pub fn display(net: &IpNet) -> String {
    if is_single(net) { net.addr().to_string() } else { net.to_string() }
}

/// Why a network can be neither allowed nor blocked, if so: everything, loopback, multicast, unspecified.
pub fn unusable(net: &IpNet) -> Option<&'static str> {
    if net.prefix_len() == 0 {
        return Some("/0 covers the whole Internet. Enter the networks that you mean.");
    }
    let overlaps = |other: IpNet| net.contains(&other) || other.contains(net);
    if overlaps(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)))
        || overlaps(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)))
    {
        return Some("This covers the loopback addresses of the PBX itself, which are never filtered.");
    }
    if overlaps(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)))
        || overlaps(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)))
    {
        return Some("This covers multicast addresses, which can't be the source of a connection.");
    }
    if net.contains(&IpAddr::V4(Ipv4Addr::UNSPECIFIED)) || net.contains(&IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
        return Some("This covers the unspecified address (0.0.0.0 or ::), which no host has.");
    }
    None
}

/// The key by which one source is counted: the address for IPv4, the /64 for IPv6, since one host has a whole /64.
pub fn source_key(addr: IpAddr) -> IpNet {
    match addr.to_canonical() {
        IpAddr::V4(v4) => IpNet::from(IpAddr::V4(v4)),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, 64).trunc()),
    }
}

/// The first characters of a text for use inside an error sentence.
pub(crate) fn shorten(text: &str) -> String {
    let text = text.trim();
    if text.chars().count() <= 40 {
        return text.to_owned();
    }
    let head: String = text.chars().take(40).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (typed, kept) in [
            ("203.0.113.9", "203.0.113.9/32"),
            (" 203.0.113.9/24 ", "203.0.113.0/24"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("::ffff:203.0.113.9", "203.0.113.9/32"),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ] {
            assert_eq!(parse_net(typed).unwrap().to_string(), kept, "{typed}");
        }
    }

    #[test]
    fn refuses_with_a_sentence() {
        for bad in [
            "",
            "203.0.113",
            "203.0.113.9/33",
            "203.0.113.9/-1",
            "203.0.113.9/+8",
            "::/129",
            "1.2.3.4;drop",
            "😀",
            "0x7f.1",
            "1.2.3.4/",
        ] {
            assert!(parse_net(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unusable_networks() {
        for bad in [
            "0.0.0.0/0",
            "::/0",
            "127.0.0.1",
            "126.0.0.0/7",
            "::1",
            "224.0.0.5",
            "ff02::1",
            "0.0.0.0",
            "0.0.0.0/8",
            "::",
        ] {
            assert!(unusable(&parse_net(bad).unwrap()).is_some(), "{bad}");
        }
        for good in ["10.0.0.0/8", "203.0.113.9", "2001:db8::/32", "128.0.0.0/2"] {
            assert!(unusable(&parse_net(good).unwrap()).is_none(), "{good}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_explains(text in ".{0,80}") {
            match parse_net(&text) {
                Ok(net) => prop_assert_eq!(net, canonical(net)),
                Err(sentence) => prop_assert!(!sentence.is_empty()),
            }
        }

        #[test]
        fn parsing_what_was_displayed_gives_the_same(addr in any::<u128>(), length in 0u8..=128) {
            let net = canonical(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(addr), length)));
            prop_assert_eq!(parse_net(&display(&net)).unwrap(), net);
        }
    }
}
