//! Listening, with errors that say which address, what is wrong and what to do.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, ipproto, listen, socket, sockopt};

use crate::address::{Address, AddressError, Transport};

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The text is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The port is taken.
    #[error(
        "cannot listen on {address}: another program uses this port (or another instance of this one); stop it, or configure \
         another port"
    )]
    InUse {
        /// Which address.
        address: String,
    },
    /// The port is reserved.
    #[error(
        "cannot listen on {address}: ports below 1024 need a privilege that this program should not have; configure a higher \
         port"
    )]
    Forbidden {
        /// Which address.
        address: String,
    },
    /// This machine does not have the IP address.
    #[error(
        "cannot listen on {address}: this machine does not have this IP address; give one that it has, or 0.0.0.0 (in IPv6, \
         ::) for all"
    )]
    NotOurs {
        /// Which address.
        address: String,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// Which address.
        address: String,
        /// What the system or the transport said.
        source: io::Error,
    },
    /// The transport did not say in time that it listens.
    #[error("cannot listen on {address}: the transport does not answer")]
    Timeout {
        /// Which address.
        address: String,
    },
}

/// Binds the address for a moment.
///
/// The transports cannot be relied on for this: libp2p binds TCP ports with `SO_REUSEPORT`, so that a second process of the
/// same user gets no error but half of the connections; and on the way through their error types the kind is lost.
pub(crate) fn probe(address: Address) -> Result<(), ListenError> {
    // Any free port will do: there is nothing to be in use.
    if address.socket.port() == 0 {
        return Ok(());
    }
    try_bind(address).map_err(|errno| {
        let address = address.to_string();
        match errno {
            Errno::ADDRINUSE => ListenError::InUse { address },
            Errno::ACCESS | Errno::PERM => ListenError::Forbidden { address },
            Errno::ADDRNOTAVAIL => ListenError::NotOurs { address },
            other => ListenError::Other { address, source: other.into() },
        }
    })
}

fn try_bind(address: Address) -> Result<(), Errno> {
    let (family, is_v6) = match address.socket {
        SocketAddr::V4(_) => (AddressFamily::INET, false),
        SocketAddr::V6(_) => (AddressFamily::INET6, true),
    };
    let probe = match address.transport {
        Transport::Quic => socket(family, SocketType::DGRAM, Some(ipproto::UDP))?,
        Transport::Tcp => socket(family, SocketType::STREAM, Some(ipproto::TCP))?,
    };
    if is_v6 {
        // As the transports do: otherwise an IPv4 listener on the same port would be in the way.
        sockopt::set_ipv6_v6only(&probe, true)?;
    }
    if address.transport == Transport::Tcp {
        // Connections of an earlier run that linger in the kernel are no obstacle.
        sockopt::set_socket_reuseaddr(&probe, true)?;
    }
    bind(&probe, &address.socket)?;
    if address.transport == Transport::Tcp {
        listen(&probe, 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn probe_text(text: &str) -> Result<(), ListenError> {
        probe(text.parse().unwrap())
    }

    #[test]
    fn a_port_in_use_is_named() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!("/ip4/127.0.0.1/tcp/{}", tcp.local_addr().unwrap().port());
        let error = probe_text(&text).unwrap_err();
        assert!(matches!(&error, ListenError::InUse { address } if *address == text));
        assert!(error.to_string().contains(&text));
        drop(tcp);
        probe_text(&text).unwrap();

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let text = format!("/ip4/127.0.0.1/udp/{}/quic-v1", udp.local_addr().unwrap().port());
        assert!(matches!(probe_text(&text), Err(ListenError::InUse { .. })));
    }

    #[test]
    fn a_foreign_address_is_named() {
        // 192.0.2.0/24 is for documentation (RFC 5737).
        assert!(matches!(probe_text("/ip4/192.0.2.1/tcp/4000"), Err(ListenError::NotOurs { .. })));
    }

    #[test]
    fn any_free_port_is_no_conflict() {
        probe_text("/ip4/127.0.0.1/tcp/0").unwrap();
        probe_text("/ip4/127.0.0.1/udp/0/quic-v1").unwrap();
    }
}
