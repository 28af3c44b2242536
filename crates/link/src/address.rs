//! The addresses that a link understands: an IP address, a port, and one of two transports.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// What is below a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// QUIC version 1 over UDP.
    Quic,
    /// TCP, Noise, Yamux.
    Tcp,
}

/// A parsed address. Its text is `/ip4/<address>/udp/<port>/quic-v1` or `/ip4/<address>/tcp/<port>`, or the same with `ip6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) transport: Transport,
    pub(crate) socket: SocketAddr,
}

/// Why the text of an address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not a multiaddr at all.
    #[error(
        "{address:?} is not an address ({reason}); write \"/ip4/<address>/udp/<port>/quic-v1\" or \
         \"/ip4/<address>/tcp/<port>\", with ip6 for IPv6"
    )]
    Malformed {
        /// The text.
        address: String,
        /// What the parser said.
        reason: String,
    },
    /// A multiaddr, but not of one of the two forms.
    #[error(
        "{address:?} is not supported; write \"/ip4/<address>/udp/<port>/quic-v1\" or \"/ip4/<address>/tcp/<port>\", with ip6 \
         for IPv6: host names are not resolved, and the key of the peer is given beside its addresses"
    )]
    Unsupported {
        /// The text.
        address: String,
    },
    /// An address that one can listen on but not connect to.
    #[error("{address:?} cannot be connected to: give the peer's own IP address and a port other than 0")]
    NotDialable {
        /// The text.
        address: String,
    },
}

impl Address {
    /// Reads an address that is to be connected to.
    pub(crate) fn to_dial(text: &str) -> Result<Self, AddressError> {
        let address: Self = text.parse()?;
        if address.socket.port() == 0 || address.socket.ip().is_unspecified() {
            return Err(AddressError::NotDialable { address: text.to_owned() });
        }
        Ok(address)
    }

    pub(crate) fn to_multiaddr(self) -> Multiaddr {
        let address = Multiaddr::empty().with(self.socket.ip().into());
        match self.transport {
            Transport::Quic => address.with(Protocol::Udp(self.socket.port())).with(Protocol::QuicV1),
            Transport::Tcp => address.with(Protocol::Tcp(self.socket.port())),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address: Multiaddr = text.parse().map_err(|error| AddressError::Malformed {
            address: text.to_owned(),
            reason: format!("{error}"),
        })?;
        let parts: Vec<Protocol<'_>> = address.iter().collect();
        let ip = match parts.first() {
            Some(Protocol::Ip4(ip)) => Some(IpAddr::from(*ip)),
            Some(Protocol::Ip6(ip)) => Some(IpAddr::from(*ip)),
            _ => None,
        };
        match (ip, parts.get(1..).unwrap_or_default()) {
            (Some(ip), [Protocol::Udp(port), Protocol::QuicV1]) => {
                Ok(Self { transport: Transport::Quic, socket: (ip, *port).into() })
            }
            (Some(ip), [Protocol::Tcp(port)]) => {
                Ok(Self { transport: Transport::Tcp, socket: (ip, *port).into() })
            }
            _ => Err(AddressError::Unsupported { address: text.to_owned() }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_multiaddr().fmt(f)
    }
}

/// Where a connection came from, as far as it is hard to have many of them: an IPv4 address, or an IPv6 /64, which is what
/// one subscriber is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin(IpAddr);

impl Origin {
    /// The origin of a connection's remote address.
    pub(crate) fn of(remote: &Multiaddr) -> Option<Self> {
        match remote.iter().next() {
            Some(Protocol::Ip4(ip)) => Some(Self(ip.into())),
            Some(Protocol::Ip6(ip)) => Some(match ip.to_ipv4_mapped() {
                Some(ip) => Self(ip.into()),
                None => Self(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into()),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_survive_a_round_trip() {
        for text in [
            "/ip4/127.0.0.1/udp/4000/quic-v1",
            "/ip4/0.0.0.0/tcp/0",
            "/ip6/::1/udp/1/quic-v1",
            "/ip6/2001:db8::7/tcp/65535",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_forms_are_refused_with_the_text_in_the_message() {
        for text in [
            "/dns4/example.org/tcp/1",
            "/ip4/127.0.0.1/udp/1",
            "/ip4/127.0.0.1/udp/1/quic",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/tcp/1/ws",
            "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA",
            "",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        assert!(matches!("127.0.0.1:4000".parse::<Address>(), Err(AddressError::Malformed { .. })));
        assert!(matches!("/ip4/300.0.0.1/tcp/1".parse::<Address>(), Err(AddressError::Malformed { .. })));
    }

    #[test]
    fn what_can_only_be_listened_on_is_not_dialled() {
        for text in ["/ip4/0.0.0.0/tcp/1", "/ip4/127.0.0.1/tcp/0", "/ip6/::/udp/1/quic-v1"] {
            assert!(text.parse::<Address>().is_ok());
            assert!(matches!(Address::to_dial(text), Err(AddressError::NotDialable { .. })));
        }
    }

    #[test]
    fn an_ipv6_subscriber_is_one_origin() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("/ip6/2001:db8:1:2:3:4:5:6/tcp/1"), origin("/ip6/2001:db8:1:2::1/udp/9/quic-v1"));
        assert_ne!(origin("/ip6/2001:db8:1:2::1/tcp/1"), origin("/ip6/2001:db8:1:3::1/tcp/1"));
        assert_ne!(origin("/ip4/10.0.0.1/tcp/1"), origin("/ip4/10.0.0.2/tcp/1"));
        assert_eq!(origin("/ip4/10.0.0.1/tcp/1"), origin("/ip6/::ffff:10.0.0.1/tcp/1"));
    }
}
